"""Beliefs about a device on which nothing was measured, from the closest known profile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from hwnas_sdk import _resources
from hwnas_sdk.core.errors import ConfigError, DataError
from hwnas_sdk.core.types import DeviceProfile, DeviceSpec
from hwnas_sdk.predictors.latency_model import LatencyModel
from hwnas_sdk.predictors.metrics import Z_90
from hwnas_sdk.spaces import SearchSpace
from hwnas_sdk.workflows.beliefs import Beliefs, Label
from hwnas_sdk.workflows.profile_file import load_profile


@dataclass(frozen=True, slots=True)
class Kinship:
    """How far two devices may lie apart.

    Attributes:
        words: what they share.
        share: how much the other's profile counts for the ranking, beside the average known device.
        shape_rel_sd: relative doubt about each reference, beyond a common factor.
        scale_log_sd: doubt about the common factor.
    """

    words: str
    share: float
    shape_rel_sd: float
    scale_log_sd: float

    @property
    def factor90(self) -> float:
        """The milliseconds are within this factor, either way, nine times in ten."""
        return math.exp(Z_90 * self.scale_log_sd)


# How much of a ranking comes from the other device: between the training devices of a family half
# of it gained, between unseen ones half lost, so it is a quarter. A stranger's ranking was worse
# than the average known device's however much its values were doubted: only the level is its own.
# Doubt about the level: columns of one chip measured by two groups, of families (a family here is a
# whole architecture, wider than one of the tables), and the shipped profile against the training
# devices, rounded up. `test_public_devices_from_each_others_profiles` holds both to public columns.
SAME_CHIP: Final = Kinship("the same chip", 1.0, 0.05, 0.3)
SAME_FAMILY: Final = Kinship("the same family", 0.25, 0.15, 1.2)
STRANGER: Final = Kinship("neither chip nor family", 0.0, 0.4, 1.8)


FAMILIES: Final = (
    "aarch64", "android", "armv6l", "armv7l", "armv8l", "jetson", "linux", "loongarch64", "ppc64le",
    "raspberry_pi", "replay", "riscv64", "s390x", "simulator", "tvm-rpc", "x86",
)  # fmt: skip
"""What agents and drivers call devices; a Linux board without a name of its own goes by its
architecture."""
CALCULATED: Final = ("simulator", "replay")
"""Families that calculate or look up what others measure."""


def described_device(
    family: str, chip: str = "", *, profiles: Sequence[DeviceProfile] = ()
) -> DeviceSpec:
    """A device that nobody can reach now, by its family (as `hwnas devices list` names it).

    Raises: ConfigError for a family that is neither one of `FAMILIES` nor that of a profile.
    """
    seen = {str(profile.device["family"]) for profile in profiles if "family" in profile.device}
    known = {name.casefold(): name for name in (*seen, *FAMILIES)}
    if family.casefold() not in known:
        raise ConfigError(
            f"no family of devices is called {family!r}",
            code="unknown_family",
            hint=f"one of {', '.join(sorted(known.values()))}",
        )
    family = known[family.casefold()]
    name = " ".join(["any", family, *([chip] if chip else [])])
    return DeviceSpec(
        id=f"{name.replace(' ', '-').lower()}@described",
        name=name,
        uri="",
        family=family,
        soc=chip,
        cores=1,
        memory_mib=0,
        machine="bare",
    )


def shipped_profiles() -> list[DeviceProfile]:
    """The profiles that come with the package, by file name."""
    folder = _resources.bundled("profiles")
    return [load_profile(path) for path in sorted(folder.glob("*.yaml"))]


def kinship(spec: DeviceSpec, device: Mapping[str, object]) -> Kinship:
    """What a device shares with the one of a profile."""
    if spec.soc and _same(spec.soc, device.get("soc")):
        return SAME_CHIP
    return SAME_FAMILY if _same(spec.family, device.get("family")) else STRANGER


def _same(one: str, other: object) -> bool:
    return isinstance(other, str) and one.casefold() == other.casefold()


def _stands_for(profile: DeviceProfile, spec: DeviceSpec) -> bool:
    """Whether a profile may stand for a device: calculated values only for their own family."""
    family = profile.device.get("family")
    if profile.device.get("machine") == "emulated":
        return False
    return family not in CALCULATED or _same(spec.family, family)


def closest_profile(
    spec: DeviceSpec, profiles: Sequence[DeviceProfile], *, runtime: str
) -> tuple[DeviceProfile, Kinship]:
    """The profile with the least doubt; the newest of several.

    Emulated boards never count; simulators and replayed tables only for their own family.

    Raises: DataError when there is none with this runtime.
    """
    usable = [
        profile
        for profile in profiles
        if profile.runtime == runtime
        and profile.device_id != spec.id
        and not profile.folded
        and _stands_for(profile, spec)
    ]
    if not usable:
        raise DataError(
            f"no profile of another device with the runtime {runtime} is known",
            code="no_profile",
            hint="measure this one: `hwnas profile NAME`",
        )
    newest_first = sorted(usable, key=lambda p: p.measured_at, reverse=True)
    best = min(newest_first, key=lambda p: kinship(spec, p.device).scale_log_sd)
    return best, kinship(spec, best.device)


def zero_measurement_beliefs(
    space: SearchSpace,
    spec: DeviceSpec,
    profiles: Sequence[DeviceProfile],
    *,
    folded: bool,
    runtime: str = "ort",
) -> Beliefs:
    """What the closest profile says of `spec`, with the doubt of its distance.

    The closer the profile, the more of the ranking is its own; the rest is that of the average
    known device. The milliseconds are those of the other device. Objectives beyond error and
    latency need measurements.
    Raises: DataError without a profile of this runtime and space.
    """
    fitting = [profile for profile in profiles if profile.space == space.name]
    profile, kin = closest_profile(spec, fitting, runtime=runtime)
    rows = zip(profile.architectures, profile.latency_ms, strict=True)
    labels = [
        Label(
            architecture=space.decode(arch),
            folded=False,
            latency_ms=latency_ms,
            rel_sd=kin.shape_rel_sd,
            peak_memory_mib=None,
        )
        for arch, latency_ms in rows
    ]
    beliefs = Beliefs.fit(space, labels, folded=folded)
    return replace(
        beliefs,
        latency=_partly(beliefs.latency, kin.share),
        n_labels=0,
        surprise=None,
        source=_source(spec, profile, kin),
        scale_log_sd=kin.scale_log_sd,
    )


def _partly(model: LatencyModel, share: float) -> LatencyModel:
    """Either as the model says, with probability `share`, or like any known device, at its scale.

    Mean and covariance are those of the mixture of both.
    """
    prior = model.prior
    apart = model.weights - prior.mean
    known_noise = float(np.exp(2.0 * prior.log_noises.mean()))
    return replace(
        model,
        weights=prior.mean + share * apart,
        covariance=share * model.covariance
        + (1.0 - share) * prior.covariance_parts.known
        + share * (1.0 - share) * np.outer(apart, apart),
        noise_variance=share * model.noise_variance + (1.0 - share) * known_noise,
    )


def _source(spec: DeviceSpec, profile: DeviceProfile, kin: Kinship) -> str:
    """What to tell the user."""
    ranking = {
        1.0: "the ranking is that profile's",
        0.0: "the ranking is that of the average known device, only the level is the profile's",
    }.get(kin.share, "the ranking is between that profile's and the average known device's")
    return (
        f"nothing was measured on {spec.name}: predicted from the profile of {profile.name} "
        f"({profile.device.get('soc')}), which shares {kin.words} with it; {ranking}; milliseconds "
        f"are within a factor of {kin.factor90:.1f} either way nine times in ten"
    )
