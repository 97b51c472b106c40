"""What nexcage decides: values and pure functions, no I/O."""
