_base_ = './convnextv2-atto-p8_mp-mae-pre_unet_1xb32-200e_m-chesapeake.py'
custom_hooks = [dict(type='mmrsfm.FreezeHook', module='backbone', eval_mode=False)]
