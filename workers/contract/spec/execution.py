"""`execution`: how a step is computed, which changes its speed and its memory, not its result."""

from typing import Any, Literal

from pydantic import field_validator

from .strict import Strict


class Execution(Strict):
    """How a step is computed, which changes its speed and its memory, not its result."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Whether torch.compile compiles the model; `auto` does so on GPUs. Compiled code rounds otherwise, and draws other
    random numbers for dropout."""
    activation_checkpointing: bool = False
    """Compute the activations of each layer again in the backward pass, where they do not fit into memory."""

    @field_validator("compile", mode="before")
    @classmethod
    def _reads_a_switch(cls, value: Any) -> Any:
        """YAML 1.1, which PyYAML reads, takes an unquoted `on` or `off` for true or false."""
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value
