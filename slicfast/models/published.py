"""Parameter names of networks that others published, beside the names that the same network has here."""

from __future__ import annotations

import re

# Ours, theirs: the first that fits is applied. Blocks of torchvision's VideoResNet are sequences.
Rules = tuple[tuple[str, str], ...]

TORCHVISION_R3D: Rules = (
    (r"^conv1\.", "stem.0."),
    (r"^bn1\.", "stem.1."),
    (r"^(layer\d\.\d+)\.conv(\d)\.", r"\1.conv\2.0."),
    (r"^(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.1."),
)
TORCHVISION_R2PLUS1D: Rules = (
    (r"^conv1\.spatial\.", "stem.0."),
    (r"^conv1\.bn\.", "stem.1."),
    (r"^conv1\.temporal\.", "stem.3."),
    (r"^bn1\.", "stem.4."),
    (r"^(layer\d\.\d+)\.conv(\d)\.spatial\.", r"\1.conv\2.0.0."),
    (r"^(layer\d\.\d+)\.conv(\d)\.bn\.", r"\1.conv\2.0.1."),
    (r"^(layer\d\.\d+)\.conv(\d)\.temporal\.", r"\1.conv\2.0.3."),
    (r"^(layer\d\.\d+)\.bn(\d)\.", r"\1.conv\2.1."),
)
TORCHVISION_S3D: Rules = (
    *((rf"^{layer}\.", f"features.{place}.") for place, layer in enumerate(("conv_1a", "-", "conv_2b"))),
    (r"^conv_2c\.", "features.3."),
    *((rf"^mixed_3{letter}\.", f"features.{place}.") for place, letter in enumerate("bc", 5)),
    *((rf"^mixed_4{letter}\.", f"features.{place}.") for place, letter in enumerate("bcdef", 8)),
    *((rf"^mixed_5{letter}\.", f"features.{place}.") for place, letter in enumerate("bc", 14)),
    (r"^fc\.", "classifier.1."),
)


def published_name(name: str, rules: Rules) -> str:
    """The published name of one of our backbones' parameters; unchanged where no rule speaks of it."""
    for ours, theirs in rules:
        renamed, count = re.subn(ours, theirs, name)
        if count:
            return renamed
    return name
