"""What is wrong with a checkpoint, said so that its owner can act on it."""


class ModelError(Exception):
    """A checkpoint that cannot be served; the message names the file, field or tensor at fault."""
