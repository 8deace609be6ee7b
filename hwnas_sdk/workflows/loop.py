"""The closed loop: profile, search, verify on the board, learn, again.

One loop is one run. Every step is derived from the run's plan, its seed and the stored
measurements; the front of a round is stored before its first network is measured, so a killed loop
continues with exactly the networks it had chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import hwnas_sdk
from hwnas_sdk.core.errors import DataError, MeasurementError
from hwnas_sdk.core.events import Event, EventSink, ignore
from hwnas_sdk.core.settings import MeasureSettings
from hwnas_sdk.core.types import Architecture, DeviceProfile, Measurement, ParetoFront, Verdict
from hwnas_sdk.devices.session import DeviceSession
from hwnas_sdk.export.cache import ArtifactCache
from hwnas_sdk.predictors.bayes import LatencyPrior
from hwnas_sdk.spaces import SearchSpace, get_space
from hwnas_sdk.store.sqlite import MeasurementStore, Run
from hwnas_sdk.workflows.beliefs import Beliefs, Label
from hwnas_sdk.workflows.fronts import (
    front_from_mapping,
    front_to_mapping,
    verdict_to_mapping,
)
from hwnas_sdk.workflows.measure import (
    BoardTime,
    Measurer,
    architecture_target,
    standard_sentinel,
)
from hwnas_sdk.workflows.priors import load_prior
from hwnas_sdk.workflows.profile import profile_of, reference_architectures, reference_targets
from hwnas_sdk.workflows.profile_file import profile_to_mapping
from hwnas_sdk.workflows.runtime import artifact_maker
from hwnas_sdk.workflows.search import SearchPlan, search_front
from hwnas_sdk.workflows.search_guides import load_guide
from hwnas_sdk.workflows.verify import Box, judge, reference_box, scaled_hypervolume

PROFILE_PREFIX = "profile/"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPlan:
    """What a loop was asked to do; equal plans are the same run until it is finished.

    Attributes:
        device: inventory name; device_id: what it turned out to be.
        search: how each round searches.
        settings: how networks are measured.
        references: reference set of the profile (ours, paper, both).
        rounds: at most this many.
        folded: verify the canonical live graph (what one deploys) or every operator.
        gain_eps: stop when the verified hypervolume gains less than this, relative, in a round.
        board_s: stop starting work after this many board seconds; None for no limit.
    """

    device: str
    device_id: str
    search: SearchPlan
    settings: MeasureSettings
    references: str = "ours"
    rounds: int = 1
    folded: bool = True
    gain_eps: float = 0.0
    board_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON object; the identity of the run."""
        return {
            "sdk_version": hwnas_sdk.__version__,
            "device": self.device,
            "device_id": self.device_id,
            "seed": self.search.seed,
            "search": self.search.to_json(),
            "settings": self.settings.to_json(),
            "references": self.references,
            "rounds": self.rounds,
            "folded": self.folded,
            "gain_eps": self.gain_eps,
            "board_s": self.board_s,
        }

    def estimated_board_s(self) -> float:
        """Expected board seconds of the whole loop."""
        return sum(self.n_networks()) * self.settings.estimated_s()

    def n_networks(self) -> tuple[int, int]:
        """Networks to measure: references, candidates of all rounds."""
        n_references = len(reference_architectures(self.references))
        return n_references, self.rounds * self.search.candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopResult:
    """What a loop found."""

    run: Run
    profile: DeviceProfile
    verdicts: tuple[Verdict, ...]
    fronts: tuple[ParetoFront, ...]
    board: BoardTime
    stopped: str
    measurements: Mapping[str, Measurement] = field(default_factory=dict)


@dataclass
class Loop:
    """Runs one `LoopPlan`; see the module's docstring.

    Args:
        store, cache: the memory and the artifact cache.
        session: the open device.
        plan: what to do.
        kind: kind of the run in the store ("loop", "quickstart").
        on_event: hears of progress.
    """

    store: MeasurementStore
    cache: ArtifactCache
    session: DeviceSession
    plan: LoopPlan
    kind: str = "loop"
    on_event: EventSink = ignore

    def run(self) -> LoopResult:
        """Do the rounds that are not done yet and close the run.

        Raises: DeviceError, MeasurementError; the same plan then continues where it stopped. Before
            anything is measured, ConfigError or ModelError as `load_guide`.
        """
        plan, space = self.plan, get_space(self.plan.search.space)
        load_guide(plan.search)
        prior = load_prior(plan.search.prior)  # once: its file may be written anew meanwhile
        run = self.store.start_run(self.kind, plan.to_json())
        measurer = self._measurer(run)
        profile = self._profile(space, measurer)
        verdicts: list[Verdict] = []
        fronts: list[ParetoFront] = []
        box: Box | None = None
        stopped = "rounds"
        for number in range(1, plan.rounds + 1):
            try:
                front = self._front(space, run, number, self._labels(run, number), prior)
            except DataError as exc:
                if exc.code != "nothing_found":
                    raise
                if not verdicts:
                    self.store.finish_run(run.id)
                    raise
                stopped = "nothing new"
                break
            box = box or reference_box(front.candidates)
            fronts.append(front)
            measured = self._verify(space, measurer, front, number)
            if not measured:
                stopped = "board time"
                break
            verdicts.append(judge(front, measured, run_id=run.id, round_number=number, box=box))
            self._tell(verdicts[-1])
            if measurer.time.spent:
                stopped = "board time"
                break
            if number > 1 and self._gain(verdicts) < plan.gain_eps:
                stopped = "no gain"
                break
        if not verdicts:
            raise MeasurementError(
                f"{self.session.spec.name}: board time was spent before a candidate was measured",
                device_id=self.session.spec.id,
                code="no_board_time",
                hint="allow more board minutes",
            )
        self.store.finish_run(
            run.id,
            {
                "stopped": stopped,
                "profile": profile_to_mapping(profile),
                "verdicts": [verdict_to_mapping(verdict) for verdict in verdicts],
                "front_provenance": dict(fronts[-1].provenance),
                "board_s": measurer.time.total_s,
            },
        )
        return LoopResult(
            run=run,
            profile=profile,
            verdicts=tuple(verdicts),
            fronts=tuple(fronts),
            board=measurer.time,
            stopped=stopped,
            measurements=self.store.done_items(run.id),
        )

    def _measurer(self, run: Run) -> Measurer:
        return Measurer(
            self.store,
            self.session,
            run.id,
            self.plan.settings,
            sentinel=standard_sentinel(self.session, self.cache),
            check_outputs=True,
            seed=self.plan.search.seed,
            on_event=self.on_event,
            maker=artifact_maker(self.session, self.plan.settings, self.cache),
            time=BoardTime(limit_s=self.plan.board_s),
        )

    def _profile(self, space: SearchSpace, measurer: Measurer) -> DeviceProfile:
        archs = reference_architectures(self.plan.references)
        targets, pairs = reference_targets(
            space, archs, cache=self.cache, pairs=self.plan.folded, prefix=PROFILE_PREFIX
        )
        results = measurer.measure([*targets, *pairs], task=f"profile {self.session.spec.name}")
        if any(target.item not in results for target in targets):
            raise MeasurementError(
                f"{self.session.spec.name}: board time was spent before the profile was done",
                device_id=self.session.spec.id,
                code="no_board_time",
                hint="allow more board minutes",
            )
        try:
            return profile_of(
                [results[target.item] for target in targets],
                archs,
                spec=self.session.spec,
                settings=self.plan.settings,
                space=space.name,
                references=self.plan.references,
                source=f"run {measurer.run_id}",
            )
        except MeasurementError:
            # Every attempt is used up: the same command must start anew, not fail for ever.
            self.store.finish_run(measurer.run_id)
            raise

    def _labels(self, run: Run, number: int) -> list[Label]:
        """Valid measurements of this run that were there before round `number`."""
        later = {f"round/{n}/" for n in range(number, self.plan.rounds + 1)}
        labels = []
        for item, measurement in sorted(self.store.done_items(run.id).items()):
            if any(item.startswith(prefix) for prefix in later):
                continue
            arch = Architecture.of_id(measurement.arch_id)
            labels.append(Label.of(arch, measurement, folded=item.endswith("/folded")))
        return labels

    def _front(
        self,
        space: SearchSpace,
        run: Run,
        number: int,
        labels: Sequence[Label],
        prior: LatencyPrior,
    ) -> ParetoFront:
        """Front of a round: the stored one if there is one, else searched now and stored."""
        plan = {"loop": run.id, "round": number}
        for known in self.store.runs("round"):
            if known.plan == plan and known.result is not None:
                return front_from_mapping(known.result)
        step = self.store.start_run("round", plan)
        self.on_event(Event(f"search round {number}", 0, 1))
        beliefs = Beliefs.fit(space, labels, folded=self.plan.folded, prior=prior)
        if number == 1 and beliefs.warning():
            self.on_event(Event("warning", message=beliefs.warning()))
        front = search_front(
            space,
            beliefs,
            plan=self.plan.search,
            device_id=self.session.spec.id,
            stream=number,
            measured=[label for label in labels if label.folded == self.plan.folded],
        )
        self.store.finish_run(step.id, front_to_mapping(front))
        self.on_event(Event(f"search round {number}", 1, 1))
        return front

    def _verify(
        self, space: SearchSpace, measurer: Measurer, front: ParetoFront, number: int
    ) -> dict[str, Measurement]:
        targets = [
            architecture_target(
                space,
                candidate.architecture,
                cache=self.cache,
                folded=self.plan.folded,
                prefix=f"round/{number}/",
            )
            for candidate in front.candidates
        ]
        results = measurer.measure(targets, task=f"verify round {number}")
        return {t.arch_id: results[t.item] for t in targets if t.item in results}

    def _tell(self, verdict: Verdict) -> None:
        rho = "-" if verdict.spearman is None else f"{verdict.spearman:.3f}"
        self.on_event(
            Event(
                "round",
                message=f"round {verdict.round}: "
                f"{verdict.n_measured} of {len(verdict.candidates)} measured, "
                f"Spearman {rho}, {len(verdict.dominated_after_measuring)} fell off the front",
            )
        )

    @staticmethod
    def _gain(verdicts: Sequence[Verdict]) -> float:
        """Relative gain of the union's verified hypervolume by the last round."""
        before = union_hypervolume(verdicts[:-1])
        after = union_hypervolume(verdicts)
        return (after - before) / before if before > 0 else float("inf")


def union_hypervolume(verdicts: Sequence[Verdict]) -> float:
    """Verified hypervolume of all measured candidates together, in the box of the first round."""
    rows = [
        row for verdict in verdicts for row in verdict.candidates if row.measured_ms is not None
    ]
    return scaled_hypervolume(
        [row.error_pct for row in rows],
        [float(row.measured_ms or 0.0) for row in rows],
        verdicts[0].hypervolume_reference,
    )
