"""The subcommands of ``%llama``, one module each: ``configure(parser)`` and ``run(session, args)``."""
