"""Many theories instead of one: of each of 1,000 random ones at most 20 diagrams of 2->2 and of 2->3."""
theory = "random:0-999"
processes = "2->2; 2->3"
sample = 20
longest_amp = 511  # with the end token 512
longest_sqamp = 510  # with the start and the end token 512
