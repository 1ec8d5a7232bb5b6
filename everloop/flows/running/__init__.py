"""One run of a plan: who drives it, what each step is made of, how it is executed, and what is written down."""
