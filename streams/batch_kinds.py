"""The settings of models that are trained in batches, from the archive: networks of torch, by kind.

Estimators with scikit-learn's interface (`sklearn:<module>.<Class>`) know their own, as River's do.
"""

from __future__ import annotations

from streams.model_setting import Kind, Setting

_TRAINING = {
    "lr": Setting(0.001, high=1.0, is_open=True),
    "weight_decay": Setting(0.01, high=10.0),
    "batch": Setting(512, 1, 1_000_000),
    "epochs": Setting(20, 1, 100_000),
    "patience": Setting(3, 1, 10_000),  # epochs without a better validation loss, then it stops
    "warmup": Setting(0.05, 0.0, 0.9),  # share of all steps
    "clip": Setting(1.0, is_open=True),
    "class_weights": Setting("none", options=("none", "balanced"), only=("binary", "multiclass")),
    "seed": Setting(0, 0, 2**31 - 1),
}
_DROPOUT = Setting(0.1, 0.0, 0.95)
_EMBEDDING = Setting(16, 1, 1024)  # numbers that stand for a category
_VOCABULARY = Setting(10_000, 1, 1_000_000)  # categories of a column that have an embedding, the most frequent first

BATCH_KINDS: dict[str, Kind] = {
    "torch:logistic": Kind(settings={"vocabulary": _VOCABULARY, **_TRAINING}),
    "torch:mlp": Kind(
        settings={
            "hidden": Setting((256, 128), 1, 4096),
            "activation": Setting("relu", options=("relu", "tanh")),
            "dropout": Setting(0.0, 0.0, 0.95),
            "bits": Setting(12, 1, 20),  # rows of the hashed table of categories, as the compiled mlp has it
            **_TRAINING,
        }
    ),
    "torch:resmlp": Kind(
        settings={
            "width": Setting(192, 1, 4096),
            "blocks": Setting(3, 1, 64),
            "dropout": _DROPOUT,
            "embedding": _EMBEDDING,
            "vocabulary": _VOCABULARY,
            **_TRAINING,
        }
    ),
    "torch:ft_transformer": Kind(
        settings={
            "width": Setting(64, 8, 1024),
            "blocks": Setting(2, 1, 32),
            "heads": Setting(8, 1, 64),
            "dropout": _DROPOUT,
            "vocabulary": _VOCABULARY,
            **_TRAINING,
        }
    ),
    "torch:autoencoder": Kind(
        ("anomaly",),
        {"hidden": Setting((64, 8), 1, 4096), "embedding": _EMBEDDING, "vocabulary": _VOCABULARY, **_TRAINING},
    ),
}
