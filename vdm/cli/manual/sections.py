"""Keys and groups in the short help of commands; other commands show all keys of their own YAML."""

from collections.abc import Mapping, Sequence

OF_TRAINING: Mapping[str, Sequence[str]] = {
    "Data": (
        "data.path",
        "data.global_batch_size",
        "data.micro_batch_size",
        "data.clips.shapes",
        "data.clips.fps",
        "data.num_workers",
        "data.max_validation_clips",
    ),
    "Model": (
        "model",
        "diffusion",
        "encoder",
        "text_encoder",
        "model.conditioner.num_classes",
        "model.conditioner.image",
        "init_from",
        "tune",
    ),
    "Training": (
        "trainer.max_steps",
        "optimizer.lr",
        "lr_schedule",
        "lr_schedule.warmup_steps",
        "averages",
        "training.condition_dropout.all",
        "seed",
        "experiment",
        "debug",
    ),
    "Devices": (
        "trainer.devices",
        "trainer.precision",
        "strategy",
        "blocks.recompute",
        "blocks.compile",
        "launcher",
    ),
    "Output": (
        "name",
        "resume",
        "save.every_steps",
        "save.keep.last",
        "validate.every_steps",
        "callbacks.samples.every_steps",
        "guidance_scale",
        "sampler",
        "logger",
    ),
}
SECTIONS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "train": OF_TRAINING,
    "check": OF_TRAINING,
    "plan": {
        "Plan": ("clip_shape", "caption_bytes", "devices", "nodes", "memory_gib", "reserve_gib"),
        "Run, with all further keys of vdm train": (
            "data.path",
            "data.global_batch_size",
            "data.micro_batch_size",
            "model",
            "diffusion",
            "encoder",
            "text_encoder",
            "averages",
            "tune",
            "trainer.precision",
            "strategy",
            "blocks.recompute",
        ),
    },
}
"""Keys and groups by heading, for commands with too many for one screen."""

HIDDEN: Mapping[str, frozenset[str]] = {
    "sample": frozenset({"text_encoder", "model.readers"}),
    "export": frozenset({"families"}),
    "import": frozenset({"families"}),
}
"""Keys, with all keys below, that users can't set, or that only other YAMLs refer to."""
OF_RUN: Mapping[str, frozenset[str]] = {
    "sample": frozenset({"sampler", "guidance"}),
    "evaluate": frozenset({"sampler", "guidance"}),
}
"""Groups whose default is the choice of the checkpoint's run; the one in the YAML only stands in for it."""
HIDDEN_GROUPS = frozenset({"run_folder", "pretrained"})
"""Groups from which only YAMLs choose, and not users."""
