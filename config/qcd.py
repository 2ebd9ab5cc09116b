"""The standard QCD set: every diagram of 2->2 and 2->3 that is no longer than electroweak rows may be."""
theory = "qcd"
processes = "2->2; 2->3"
longest_amp = 780
longest_sqamp = 1700

# rows grow a little when rare numbers are spelled, see tokenizer.py
src_max_len = 810
tgt_max_len = 1730
rename_particles = True
