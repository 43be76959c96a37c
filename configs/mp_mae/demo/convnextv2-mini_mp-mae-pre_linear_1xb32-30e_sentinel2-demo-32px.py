_base_ = './convnextv2-mini_scratch_linear_1xb32-30e_sentinel2-demo-32px.py'

model = dict(
    backbone=dict(
        # tools/demo/mpmae_job.py names the checkpoint of its own run.
        init_cfg=dict(type='mmrsfm.Pretrained', checkpoint='work_dirs/quickstart_mpmae/mp-mae.pth')
    )
)
