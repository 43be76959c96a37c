# The weights of the three tasks are learnt, by their uncertainties (Kendall et al., arXiv 1705.07115).
_base_ = './mtp_rvsa-base_32xb3-amp-warmup-coslr-80k_samrs-224px.py'

model = dict(task_weights='uncertainty')
