# What every run has, of any task and any schedule. The task's config sets `default_scope` and,
# where it draws predictions, the type of the `visualizer`. A schedule sets `train_cfg`: logging and
# checkpoints count in its unit, so that they are the same for epochs and for iterations.
custom_imports = dict(imports=['mmrsfm'], allow_failed_imports=False)

default_hooks = dict(
    # Times, images/s, waiting for data, use of the GPU.
    timer=dict(type='mmrsfm.IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Every epoch, or every val_interval iterations.
    checkpoint=dict(type='mmrsfm.CheckpointHook', max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Weights named in init_cfg are in the model, and were trained on imagery like this run's.
    pretrained_guard=dict(type='mmrsfm.PretrainedGuardHook'),
    # The heads have as many classes as the dataset.
    class_count=dict(type='mmrsfm.ClassCountHook'),
    # One image a GPU, or SyncBN on a CPU, does not end the run.
    batch_norm=dict(type='mmrsfm.BatchNormHook'),
    # Steps with NaN or infinity are left out, explained and counted.
    non_finite=dict(type='mmrsfm.NonFiniteHook'),
    # SIGTERM and SIGUSR1 (Slurm) end the run with a checkpoint, and the exit status 75.
    preemption=dict(type='mmrsfm.PreemptionHook'),
    # Pretraining: images, what was hidden, and what the model makes of it, twenty times in a run.
    training_pictures=dict(type='mmrsfm.TrainingPictureHook'),
)

log_processor = dict(type='mmrsfm.LogProcessor', window_size=10)
log_level = 'INFO'
# Numbers and pictures: files in vis_data, and TensorBoard where it is installed. W&B, MLflow:
# docs/monitoring.md.
visualizer = dict(
    type='Visualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='mmrsfm.TensorboardVisBackend')],
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # On a machine without a GPU our tools take gloo instead.
    dist_cfg=dict(backend='nccl'),
)

# Order, augmentation and masks of every sample follow from this, the epoch and the index.
randomness = dict(seed=0, deterministic=False)

load_from = None
resume = False
