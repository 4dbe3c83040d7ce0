"""What flows: the pipeline file, frames, codecs, Kafka, the label ledger, features, snapshots, metrics, errors."""
