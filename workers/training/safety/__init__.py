"""What stops a run or warns of it: signals and commands, a rank that hangs, and a loss in disorder."""
