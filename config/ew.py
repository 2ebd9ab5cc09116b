"""The standard electroweak set: every diagram of 1->2, 1->3 and 2->2, a sample of 2->3.

Most 1->3 rows, such as those of e -> e mu mu~, are no decays that momenta allow. They are verified with one product
crossed to the other side (physics/numeric.py); the manifest counts them as `crossed`.
"""
theory = "ew"
processes = "1->2; 1->3; 2->2; 2->3"
sample = 11000  # 2->3 alone has more: 641,380 diagrams
longest_amp = 780
longest_sqamp = 1700

# room for rare numbers, which are written digit by digit, see tokenizer.py
src_max_len = longest_amp + 30
tgt_max_len = longest_sqamp + 30

# for one GPU; docs/results.md, "The standard sets on one core", has the flags of a size for a CPU
d_model = 512
heads = 8
d_ff = 4 * d_model
batch_tokens = 16384
warmup_steps = 400
max_steps = 100000
max_minutes = 10.0  # the learning rate reaches its end
batch_rows = 512
