from graphistryhub import hub

__all__ = ["hub"]
