"""Everything about chains of timed stops: which there are, how many, which are best, and what each is like. Plain Python over arrays."""
