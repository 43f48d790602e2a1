"""The sliders that shape a distribution, each with what it does. Used by every page that samples."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from dashboard import cache
from dashboard.components import link, token_picker
from gpt_core.decoding import (
    MAX_BIAS,
    MAX_STOP_STRING_CHARACTERS,
    MAX_STOP_STRINGS,
    SETTING_RANGES,
    STAGES,
    SamplingSettings,
)
from gpt_core.errors import InputError
from gpt_core.recipes import Preset, presets

#: The sliders that most readers come for; the others wait behind a click.
FIRST = ("temperature", "top_k", "top_p", "min_p")


def draw(
    page: str,
    *,
    stages: tuple[str, ...] = tuple(SETTING_RANGES),
    model: str | None = None,
    arranged: bool = False,
) -> SamplingSettings:
    """A slider for each of `stages`, in the order in which they run, and a button that puts all back.

    With `model`, also a logit bias for tokens of its vocabulary. `arranged`: the page shows the stages in an order
    that can be changed (`arrange`), and the settings follow it.
    """
    chosen: dict[str, Any] = {}
    first = [stage for stage in stages if stage in FIRST]
    for stage in first:
        chosen[stage] = _slider(page, stage)
    others = [stage for stage in stages if stage not in FIRST]
    if first and (others or model is not None):
        # Open where a link, or what was chosen before, has something in there.
        at_work = f"{page}_logit_bias" in st.query_params or any(
            st.query_params.get(f"{page}_{stage}", "") not in ("", f"{SETTING_RANGES[stage].default:.10g}")
            for stage in others
        )
        with st.expander("Bias, penalties and typical-p", key=f"{page}_more_sampling", expanded=at_work):
            if model is not None:
                chosen["logit_bias"] = _enter_bias(page, model)
            for stage in others:
                chosen[stage] = _slider(page, stage)
    else:
        if model is not None:
            chosen["logit_bias"] = _enter_bias(page, model)
        for stage in others:
            chosen[stage] = _slider(page, stage)
    if arranged:
        _restore_arrangement(page)
        chosen |= {
            "order": st.session_state[f"{page}_order"],
            "switched_off": st.session_state[f"{page}_off"],
        }
    defaults: dict[str, Any] = {
        f"{page}_{stage}": type(chosen[stage])(SETTING_RANGES[stage].default) for stage in stages
    }
    if model is not None:
        defaults[f"{page}_logit_bias"] = ()
    if arranged:
        defaults |= {f"{page}_order": STAGES, f"{page}_off": ()}
    st.button(
        "Put all back",
        key=f"{page}_sampling_reset",
        icon=":material/restart_alt:",
        on_click=st.session_state.update,
        args=(defaults,),
    )
    return SamplingSettings(**chosen)


def _slider(page: str, stage: str) -> float:
    bounds = SETTING_RANGES[stage]
    low, high, step = bounds.slider
    whole = all(float(end).is_integer() for end in (low, high, step))
    return link.pick_number(
        bounds.label,
        key=f"{page}_{stage}",
        low=low,
        high=high,
        step=int(step) if whole else float(step),
        default=bounds.default,
        explanation=bounds.explanation,
    )


def arrange(page: str, stage: str, action: str) -> None:
    """Move `stage` `earlier` or `later` by one place, or `switch` it off or on."""
    order, off = list(st.session_state[f"{page}_order"]), set(st.session_state[f"{page}_off"])
    place = order.index(stage)
    if action == "switch":
        off ^= {stage}
        st.session_state[f"{page}_off"] = tuple(name for name in STAGES if name in off)
        return
    other = place + (-1 if action == "earlier" else 1)
    if 0 <= other < len(order):
        order[place], order[other] = order[other], order[place]
        st.session_state[f"{page}_order"] = tuple(order)


def _restore_arrangement(page: str) -> None:
    """The order and what is switched off, from the link when first met, and back into it."""

    def read_order(text: str) -> tuple[str, ...] | None:
        order = tuple(text.split(","))
        return order if sorted(order) == sorted(STAGES) else None

    def read_off(text: str) -> tuple[str, ...] | None:
        names = tuple(name for name in text.split(",") if name)
        return names if set(names) <= set(STAGES) else None

    no_stages: tuple[str, ...] = ()
    ways: tuple[tuple[str, tuple[str, ...], Callable[[str], tuple[str, ...] | None], str, str], ...] = (
        (f"{page}_order", STAGES, read_order, "each stage once", "the order of generate"),
        (f"{page}_off", no_stages, read_off, "names of stages", "all switched on"),
    )
    for key, default, read, allowed, instead in ways:
        link.restore(key, default, read, allowed=allowed, instead=instead)
        link.show_notice(key)
        link.publish(key, ",".join(st.session_state[key]) or None)


def _enter_bias(page: str, model: str) -> tuple[tuple[int, float], ...]:
    """A list of tokens with what is added to their logits, in the link as `262:-5_11:2.5`."""
    key = f"{page}_logit_bias"

    def read(text: str) -> tuple[tuple[int, float], ...] | None:
        try:
            pairs = tuple((int(i), float(bias)) for i, _, bias in (p.partition(":") for p in text.split("_")))
            return SamplingSettings(logit_bias=pairs).logit_bias
        except (ValueError, InputError):
            return None

    none: tuple[tuple[int, float], ...] = ()
    link.restore(key, none, read, allowed="pairs such as 262:-5_11:2.5", instead="no bias")
    vocab_size = cache.geometry(model).vocab_size
    kept = tuple(pair for pair in st.session_state[key] if pair[0] < vocab_size)
    if kept != st.session_state[key]:
        link.notice(key, "A token with a bias is not in this model's vocabulary, and was taken out.")
        st.session_state[key] = kept
    with st.container(horizontal=True, vertical_alignment="bottom"):
        token_id = token_picker.pick_token(
            "Logit bias: token", key=f"{page}_bias_token", model=model, offered=(0,), optional=True
        )
        bias = st.number_input(
            "added to its logit",
            min_value=-MAX_BIAS,
            max_value=MAX_BIAS,
            value=-5.0,
            step=1.0,
            key=f"{page}_bias_value",
            width=130,
        )
        st.button(
            "Add",
            key=f"{page}_bias_add",
            disabled=token_id is None,
            on_click=_set_bias,
            args=(key, token_id, bias),
        )
    link.show_notice(key)
    names = cache.labels(model, tuple(token for token, _ in kept))
    for (token, value), name in zip(kept, names, strict=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(f"{name} (id {token}): {value:+g}")
            st.button(
                ":material/close:",
                key=f"{page}_bias_remove_{token}",
                help="Take this bias out",
                on_click=_set_bias,
                args=(key, token, 0.0),
            )
    link.publish(key, "_".join(f"{token}:{value:g}" for token, value in kept) or None)
    return kept


def _set_bias(key: str, token_id: int, bias: float) -> None:
    pairs = {**dict(st.session_state[key]), token_id: bias}
    try:
        st.session_state[key] = SamplingSettings(logit_bias=tuple(pairs.items())).logit_bias
    except InputError as error:
        link.notice(key, str(error))


def pick_preset(page: str, *, n_prompt_tokens: int, context_length: int) -> None:
    """A list of ready-made settings; choosing one moves the page's widgets, but for the seed.

    Its note stands there until one of those is moved again.
    """
    ready = {preset.name: preset for preset in presets(n_prompt_tokens, context_length=context_length)}
    st.selectbox(
        "Preset",
        list(ready),
        index=None,
        key=f"{page}_preset",
        placeholder="Choose ready-made settings",
        persist_state="session",
        on_change=_take_preset,
        args=(page, ready),
    )
    taken = st.session_state.get(f"_{page}_preset_taken")
    if taken in ready and all(
        st.session_state.get(key, value) == value for key, value in _preset_values(page, ready[taken]).items()
    ):
        st.caption(f"{taken}. {ready[taken].note}")


def _take_preset(page: str, ready: dict[str, Preset]) -> None:
    chosen = st.session_state[f"{page}_preset"]
    if chosen not in ready:
        return
    st.session_state.update(_preset_values(page, ready[chosen]))
    st.session_state[f"_{page}_preset_taken"] = chosen
    # So that the same one can be chosen again.
    st.session_state[f"{page}_preset"] = None


def _preset_values(page: str, preset: Preset) -> dict[str, Any]:
    """What the page's widgets are at where the preset is chosen, by their keys."""
    settings = preset.settings
    values: dict[str, Any] = {
        f"{page}_mode": "Draw" if settings.do_sample else "Greedy",
        f"{page}_max_new_tokens": settings.max_new_tokens,
        f"{page}_logit_bias": (),
        f"{page}_order": STAGES,
        f"{page}_off": (),
    }
    return values | {f"{page}_{stage}": getattr(settings.sampling, stage) for stage in SETTING_RANGES}


def enter_stop_strings(page: str) -> tuple[str, ...]:
    """A field with a stop string a line; `\\n` in it stands for a line break. In the link."""
    key = f"{page}_stop_strings"
    link.restore(key, "", lambda text: text, allowed="any text")
    typed = st.text_area(
        f"Stop strings, one a line (at most {MAX_STOP_STRINGS})",
        key=key,
        height=80,
        max_chars=MAX_STOP_STRINGS * (MAX_STOP_STRING_CHARACTERS + 1),
        help="The text ends with the token that completes one of them. Write \\n for a line break.",
        persist_state="session",
    )
    link.publish(key, typed or None)
    return tuple(line.replace("\\n", "\n") for line in (typed or "").splitlines() if line)
