"""Variety instead of one theory: 20 diagrams of 2->2 and of 2->3 from each of 600 random theories (docs/my_theory.md)."""
theory = "random:0-599"
processes = "2->2; 2->3"
sample = 20
longest_amp = 511  # with the end token 512
longest_sqamp = 510  # with the start and the end token 512
