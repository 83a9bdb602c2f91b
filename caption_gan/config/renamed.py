"""Former names of settings, which the command line answers with the present names."""

_MAXIMUM_LIKELIHOOD = {
    "averaging": "ema_momentum",
    "lengths": "length_buckets",
    "warmup": "warmup_fraction",
}
_ADVERSARIAL = {
    "anchor": "mle_weight",
    "anchor_end": "mle_weight_end",
    "averaging": "ema_momentum",
    "critic_warmup": "critic_warmup_steps",
    "mismatched": "mismatched_negatives",
    "mismatches": "hard_negatives",
    "unpaired": "unconditional_share",
}
_OBJECTIVES = {
    "maximum_likelihood": _MAXIMUM_LIKELIHOOD,
    "wgan_gp": _ADVERSARIAL,
    "policy_gradient": _ADVERSARIAL,
    "self_critical": _ADVERSARIAL,
}

# Present name of a setting by its former name.
RENAMED = {
    "decoding.diversity": "decoding.diversity_penalty",
    "decoding.no_repeated_ngram": "decoding.no_repeat_ngram_size",
    "evaluation.bootstrap": "evaluation.bootstrap_samples",
    "monitor.every": "monitor.every_steps",
    "self_critical.critic_weight": "self_critical.rewards.critic",
    "text.unfreeze_after": "text.unfreeze_after_epochs",
    **{
        f"{objective}.{former}": f"{objective}.{present}"
        for objective, names in _OBJECTIVES.items()
        for former, present in names.items()
    },
}

# Present values by a setting's present name and the former value.
RENAMED_VALUES = {
    f"{objective}.{name}": values
    for objective in ("wgan_gp", "policy_gradient", "self_critical")
    for name, values in {
        "constraint": {
            "lipschitz_penalty": "one_sided_gradient_penalty",
            "clipping": "weight_clipping",
            "spectral": "spectral_norm",
        },
        "hard_negatives": {"any": "false", "alike": "true"},
    }.items()
}
