# Trees of NEON in Yellowstone that the demonstration of MTP does not pretrain on, as oriented boxes (which
# lie upright: no other is known): made by `bash tools/quickstart.sh --task mtp` (tools/demo/data_mtp.py).
_base_ = './atlanta_demo_obb_192px.py'

data_root = 'data/mtp_demo/yellowstone'
metainfo = dict(classes=('tree',), palette=[(255, 220, 0)])
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
