"""Former names of settings, which the command line answers with the present ones."""

# Present name of a setting by its former name.
RENAMED = {
    "decoding.diversity": "decoding.diversity_penalty",
    "decoding.no_repeated_ngram": "decoding.no_repeat_ngram_size",
    "evaluation.bootstrap": "evaluation.bootstrap_samples",
    "monitor.every": "monitor.every_steps",
    "text.unfreeze_after": "text.unfreeze_after_epochs",
}

# Present values by a setting's present name and the former value.
RENAMED_VALUES: dict[str, dict[str, str]] = {}
