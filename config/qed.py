"""The standard QED set: every diagram of 2->2, 2->3, 3->2 and 1->3, a sample of 2->4.

QED conserves flavour, so that nothing decays on its mass shell. All 1->3 rows are verified with one of the three
products crossed to the other side (physics/numeric.py).
"""
theory = "qed"
processes = "2->2; 2->3; 3->2; 1->3; 2->4"
sample = 21000  # 2->4 alone has more: 822,960 diagrams
longest_amp = 480
longest_sqamp = 480
rename_particles = True

# for one GPU; docs/results.md, "The standard sets on one core", has the flags of a size for a CPU
d_model = 512
heads = 8
encoder_layers = 3
decoder_layers = 3
d_ff = 4 * d_model
dropout = 0.1

batch_tokens = 8192
learning_rate = 5e-4
warmup_steps = 400
max_steps = 100000
max_minutes = 10.0  # the learning rate reaches its end
eval_every = 500
save_every = 500
batch_rows = 512
