"""The contenders: a module each, with `build(case, given, variant) -> Program`."""
