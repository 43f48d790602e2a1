"""Every cache of the app: one thin wrapper per core function, keyed by plain values.

Models and traces live in the core's own stores; a wrapper finds them there by name. What is kept here is small and
can be made again, so that a visitor who clears Streamlit's caches costs the others a moment, not a number.
The core is imported when a wrapper is called: importing this module does not wait for the model stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
import streamlit as st

from gpt_core.decoding import BeamSettings, GenerationSettings, SamplingSettings
from gpt_core.errors import InputError
from gpt_core.readers import shared_readers

if TYPE_CHECKING:
    from gpt_core.attention import AttentionMaps, AttentionSteps, TokenAttention
    from gpt_core.attention_cell import CellSteps
    from gpt_core.attribution import DirectContributions
    from gpt_core.chat import ChatTurn
    from gpt_core.embeddings import InputEmbeddings, Neighbours
    from gpt_core.generation import GenerationStep
    from gpt_core.head_grid import LayerThumbnails
    from gpt_core.merges import WordMerges
    from gpt_core.model import LanguageModel
    from gpt_core.parameters import FamilyMember, ParameterPart
    from gpt_core.predictions import Trajectories
    from gpt_core.removal import TokenFate
    from gpt_core.rotary import RotaryAngles
    from gpt_core.sampling import CumulativeCurve, SamplingResult
    from gpt_core.tokenizer import DecodedIds, Tokenization, Variant
    from gpt_core.trace import Trace
    from gpt_core.vocabulary import VocabularyMatches

P = ParamSpec("P")
R = TypeVar("R")


def _kept(max_entries: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    return st.cache_resource(show_spinner=False, max_entries=max_entries)


def _model(model: str) -> LanguageModel:
    from gpt_core.model import load_model

    return load_model(model)


def _trace(model: str, token_ids: tuple[int, ...]) -> Trace:
    from gpt_core.trace import trace_tokens

    return trace_tokens(_model(model), token_ids)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What pages need to know of a model before they ask it anything."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    vocab_size: int
    context_length: int
    n_parameters: int
    position_kind: str
    """`learned`, `rotary` or `other`."""
    device: str
    closed_views: dict[str, str]
    """View to the sentence why this model cannot serve it exactly."""
    has_chat_template: bool


@_kept(32)
def geometry(model: str) -> ModelFacts:
    """The sizes of a model, and which views it closes."""
    lm = _model(model)
    g = lm.geometry
    return ModelFacts(
        n_layers=g.n_layers,
        n_heads=g.n_heads,
        n_kv_heads=g.n_kv_heads,
        d_model=g.d_model,
        d_head=g.d_head,
        vocab_size=g.vocab_size,
        context_length=g.context_length,
        n_parameters=g.n_parameters,
        position_kind=g.position_kind,
        device=str(lm.device),
        closed_views=dict(lm.closed_views),
        has_chat_template=bool(lm.tokenizer.chat_template),
    )


@_kept(64)
def tokenization(model: str, text: str, special_tokens: bool) -> Tokenization:
    """`tokenizer.tokenize_text`."""
    from gpt_core.tokenizer import tokenize_text

    return tokenize_text(_model(model), text, special_tokens=special_tokens)


def special_token_in(model: str, text: str) -> str:
    """The first special token that is written in `text`; empty where there is none."""
    return next((name for name in _model(model).tokenizer.all_special_tokens if name and name in text), "")


def start_token(model: str) -> str:
    """The token of `generation.start_token_ids`, as it is written; empty where there is none."""
    from gpt_core.generation import start_token_ids

    lm = _model(model)
    try:
        return str(lm.tokenizer.convert_ids_to_tokens(start_token_ids(lm)[0]))
    except InputError:
        return ""


@_kept(64)
def merges(model: str, text: str, special_tokens: bool) -> tuple[WordMerges, ...]:
    """`merges.bpe_merges`."""
    from gpt_core.merges import bpe_merges

    return bpe_merges(_model(model), text, special_tokens=special_tokens)


@_kept(64)
def found_tokens(model: str, query: str) -> VocabularyMatches:
    """`vocabulary.find_tokens`."""
    from gpt_core.vocabulary import find_tokens

    return find_tokens(_model(model), query)


@_kept(64)
def decoded_ids(model: str, token_ids: tuple[int, ...]) -> DecodedIds:
    """`tokenizer.decode_ids`."""
    from gpt_core.tokenizer import decode_ids

    return decode_ids(_model(model), token_ids)


@_kept(64)
def variants(model: str, text: str) -> tuple[Variant, ...]:
    """`tokenizer.compare_variants`."""
    from gpt_core.tokenizer import compare_variants

    return compare_variants(_model(model), text)


def labels(model: str, token_ids: tuple[int, ...]) -> tuple[str, ...]:
    """`vocabulary.label_tokens`."""
    from gpt_core.vocabulary import label_tokens

    return label_tokens(_model(model), token_ids)


@_kept(32)
def input_embeddings(model: str, token_ids: tuple[int, ...]) -> InputEmbeddings:
    """`embeddings.input_embeddings`."""
    from gpt_core.embeddings import input_embeddings as compute

    return compute(_model(model), _trace(model, token_ids))


@_kept(16)
def token_similarity(model: str, token_ids: tuple[int, ...], space: str) -> np.ndarray:
    """`embeddings.token_similarity`."""
    from gpt_core.embeddings import token_similarity as compute

    return compute(_model(model), _trace(model, token_ids), space=space)


def embeddings_snippet(model: str, text: str, token_ids: tuple[int, ...], token_id: int) -> str:
    """`snippets.embeddings.embeddings_snippet`."""
    from gpt_core.catalog import load_name
    from gpt_core.snippets.embeddings import embeddings_snippet as compose

    return compose(_model(model), token_ids, name=load_name(model), text=text, token_id=token_id)


@_kept(64)
def nearest_tokens(model: str, token_id: int, k: int) -> Neighbours:
    """`embeddings.nearest_tokens`."""
    from gpt_core.embeddings import nearest_tokens as compute

    return compute(_model(model), token_id, k=k)


@_kept(16)
def rotary_angles(model: str, n_tokens: int) -> tuple[RotaryAngles, ...]:
    """`rotary.rotary_angles`."""
    from gpt_core.rotary import rotary_angles as compute

    return compute(_model(model), n_tokens)


@_kept(16)
def parameter_parts(model: str) -> tuple[ParameterPart, ...]:
    """`parameters.count_parameters`."""
    from gpt_core.parameters import count_parameters

    return count_parameters(_model(model))


@_kept(16)
def family(model: str) -> tuple[FamilyMember, ...]:
    """`parameters.compare_family`."""
    from gpt_core.parameters import compare_family

    return compare_family(_model(model))


@_kept(16)
def module_tree(model: str) -> str:
    """`parameters.module_tree`."""
    from gpt_core.parameters import module_tree as compute

    return compute(_model(model))


@_kept(32)
def attention_maps(
    model: str, token_ids: tuple[int, ...], layer: int, head: int, start: int, stop: int
) -> AttentionMaps:
    """`attention.attention_maps` of one head for the queries start..stop-1."""
    from gpt_core.attention import attention_maps as compute

    return compute(_trace(model, token_ids), layer=layer, heads=[head], queries=range(start, stop))


@_kept(4)
def bertviz_page(
    model: str,
    token_ids: tuple[int, ...],
    labels: tuple[str, ...],
    layers: tuple[int, ...],
    first: int | None,
    dark: bool,
) -> str:
    """`plots.bertviz`: the head view of some layers, `first` shown first; the model view where that is None."""
    from dashboard.plots import bertviz
    from gpt_core.attention import all_attention_maps

    maps = all_attention_maps(_trace(model, token_ids), layers=layers)
    if first is None:
        return bertviz.model_view_html(maps, labels, layers=layers, dark=dark)
    return bertviz.head_view_html(maps, labels, layer=first, layers=layers, dark=dark)


@_kept(64)
def attention_steps(
    model: str, token_ids: tuple[int, ...], layer: int, head: int, query: int
) -> AttentionSteps:
    """`attention.attention_steps`."""
    from gpt_core.attention import attention_steps as compute

    return compute(_trace(model, token_ids), layer=layer, head=head, query=query)


@_kept(8)
def _logits(model: str, token_ids: tuple[int, ...], position: int) -> np.ndarray:
    """`trace.logits_at` for one position: `(vocab_size,)`. What the sliders read again and again."""
    from gpt_core.trace import logits_at

    row: np.ndarray = logits_at(_model(model), _trace(model, token_ids), [position])[0]
    row.flags.writeable = False
    return row


@_kept(12)
def sampling(
    model: str, token_ids: tuple[int, ...], position: int, settings: SamplingSettings
) -> SamplingResult:
    """`sampling.apply_stages` on the logits after `position`."""
    from gpt_core.sampling import apply_stages

    return apply_stages(_logits(model, token_ids, position), token_ids[: position + 1], settings)


def generation_snippet(
    model: str,
    text: str,
    settings: GenerationSettings | BeamSettings | Sequence[GenerationSettings],
    special_tokens: bool,
    taken_ids: tuple[int, ...] = (),
) -> str:
    """`recipes.snippet`."""
    from gpt_core.catalog import load_name
    from gpt_core.recipes import snippet

    return snippet(
        load_name(model),
        text,
        settings,
        _model(model),
        special_tokens=special_tokens,
        taken_ids=taken_ids,
    )


def taken_alternative(
    model: str,
    prompt_ids: tuple[int, ...],
    steps: Sequence[GenerationStep],
    token_id: int,
    settings: GenerationSettings,
) -> GenerationStep:
    """`generation.take_alternative`."""
    from gpt_core.generation import take_alternative

    return take_alternative(_model(model), prompt_ids, steps, token_id, settings)


def int8_machine_problem() -> str:
    """`decode_fast.int8_machine_problem`."""
    from gpt_core.decode_fast import int8_machine_problem as compute

    return compute()


def int8_problem(model: str) -> str:
    """`decode_fast.int8_problem`."""
    from gpt_core.decode_fast import fast_decoder
    from gpt_core.decode_fast import int8_problem as compute

    lm = _model(model)
    return compute(lm, fast_decoder(lm))


@_kept(64)
def continuable_ids(model: str, text: str) -> tuple[int, ...]:
    """`labels.continuable_ids`."""
    from gpt_core.labels import continuable_ids as compute

    return compute(_model(model), text)


@_kept(32)
def chat_turn(model: str, text: str) -> ChatTurn:
    """`chat.as_chat_turn`."""
    from gpt_core.chat import as_chat_turn

    return as_chat_turn(_model(model), text)


def is_in_memory(model: str) -> bool:
    """Whether the model is loaded now."""
    from gpt_core.model import kept_model

    return kept_model(model) is not None


def readers_of(model: str) -> int:
    """How many sessions have the model open."""
    return shared_readers().count(model)


def forget_model(model: str) -> None:
    """Let go of a model that was deleted."""
    from gpt_core.model import release_model

    release_model(model)


def layer_thumbnails(model: str, token_ids: tuple[int, ...], layer: int) -> LayerThumbnails:
    """`head_grid.kept_thumbnails`: kept in the core's store, as they are computed there by a job."""
    from gpt_core.head_grid import kept_thumbnails

    return kept_thumbnails(_model(model), token_ids, layer=layer)


@_kept(64)
def token_attention(
    model: str, token_ids: tuple[int, ...], layer: int, head: int, position: int, hide_first: bool
) -> TokenAttention:
    """`attention.token_attention`."""
    from gpt_core.attention import token_attention as compute

    return compute(_trace(model, token_ids), layer=layer, head=head, position=position, hide_first=hide_first)


@_kept(64)
def attention_cell(
    model: str, token_ids: tuple[int, ...], layer: int, head: int, query: int, key: int
) -> CellSteps:
    """`attention_cell.explain_cell`."""
    from gpt_core.attention_cell import explain_cell

    return explain_cell(_model(model), _trace(model, token_ids), layer=layer, head=head, query=query, key=key)


@_kept(8)
def longest_probe(model: str) -> int:
    """`repeated_tokens.longest_probe`."""
    from gpt_core.repeated_tokens import longest_probe as compute

    return compute(_model(model))


def sampling_curve(
    model: str, token_ids: tuple[int, ...], position: int, settings: SamplingSettings, stage: str
) -> CumulativeCurve:
    """`sampling.cumulative_curve` of one stage."""
    from gpt_core.sampling import cumulative_curve

    return cumulative_curve(sampling(model, token_ids, position, settings), stage)


def token_fate(
    model: str, token_ids: tuple[int, ...], position: int, settings: SamplingSettings, token_id: int
) -> TokenFate:
    """`removal.explain_token`."""
    from gpt_core.removal import explain_token

    result = sampling(model, token_ids, position, settings)
    return explain_token(result, token_id, token_ids[: position + 1])


@_kept(32)
def rank_trajectories(
    model: str, token_ids: tuple[int, ...], position: int, chosen: tuple[int, ...]
) -> Trajectories:
    """`predictions.rank_trajectories`."""
    from gpt_core.predictions import rank_trajectories as compute

    return compute(_model(model), _trace(model, token_ids), position=position, token_ids=chosen)


@_kept(32)
def contributions(
    model: str, token_ids: tuple[int, ...], position: int, token_id: int, versus_id: int | None
) -> DirectContributions:
    """`attribution.direct_contributions`."""
    from gpt_core.attribution import direct_contributions

    return direct_contributions(
        _model(model), _trace(model, token_ids), position=position, token_id=token_id, versus_id=versus_id
    )


def token_by_text(model: str, text: str) -> int | None:
    """The token that a reader means by `text`: written so, after a space, as a vocabulary string, or as `#id`."""
    from gpt_core.vocabulary import find_tokens

    lm = _model(model)
    if text.startswith("#") and text[1:].isascii() and text[1:].isdigit():
        number = int(text[1:]) if len(text) < 12 else lm.geometry.vocab_size
        return number if number < lm.geometry.vocab_size else None
    found = find_tokens(lm, text)
    ways = (found.token_id, found.spaced_token_id, found.piece_token_id)
    return next((token_id for token_id in ways if token_id is not None), None)


def decoded_text(model: str, token_ids: tuple[int, ...]) -> str:
    """`token_ids.decode_ids`, the text."""
    return decoded_ids(model, token_ids).text
