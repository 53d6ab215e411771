"""The errors planaria raises on purpose. Each message says what came, what is allowed and what to do."""


class PlanariaError(Exception):
    """Base of every error that a user or their input can cause."""


class InvalidInput(PlanariaError, ValueError):
    """An argument, tensor or setting is outside what the called function allows."""


class InvalidFile(PlanariaError, ValueError):
    """A file exists but does not hold what its name or format promises."""


class DataNotFound(PlanariaError, FileNotFoundError):
    """A data set is in none of the places where planaria looks for it."""


class OutputFailed(PlanariaError, OSError):
    """A result could not be written; nothing was left half-written."""


class InvalidGuard(InvalidFile):
    """A file is not a guard, or is damaged past what it can repair of itself."""


class UntrustedGuard(InvalidGuard):
    """A key was given, and the guard was made without one or with another: it may have been put in its place."""


class OtherModel(PlanariaError, ValueError):
    """The guard is of another model."""


class LooksDifferent(PlanariaError, ValueError):
    """A model has the guard's names and shapes, but looks retrained or replaced rather than damaged."""


class VerificationFailed(PlanariaError, RuntimeError):
    """A repair did not read back as it was computed; nothing was written."""
