"""What can be wrong with a checkpoint."""


class CheckpointError(Exception):
    """There is no checkpoint that a run can go on from, or none of its last step, though there should be one."""


class DamagedError(ValueError):
    """A checkpoint is not what its manifest says; the message says which file, and how it differs."""


class ExportError(Exception):
    """A model cannot be exported; the message says why, and what to do."""
