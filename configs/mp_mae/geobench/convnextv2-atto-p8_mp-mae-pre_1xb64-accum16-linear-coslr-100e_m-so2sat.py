_base_ = './convnextv2-atto-p8_mp-mae-pre_1xb64-accum16-coslr-100e_m-so2sat.py'
# Drop paths are on, as published.
custom_hooks = [dict(type='mmrsfm.FreezeHook', module='backbone', eval_mode=False)]
find_unused_parameters = True
