"""How does the model continue the prompt, token by token, and what else could have come?"""

import streamlit as st

from dashboard import cache
from dashboard.components import (
    beam_view,
    beside,
    branch_details,
    int8_switch,
    link,
    other_pages,
    playground,
    prompt,
    sampling_sliders,
    stage_order,
)
from dashboard.components.branch_tree import COLOURS
from dashboard.components.explain import show_sources
from dashboard.components.message import show_error, show_problem
from gpt_core.decoding import GENERATION_RANGES, BeamSettings, GenerationSettings
from gpt_core.errors import GptCoreError
from gpt_core.tasks import BeamTask, GenerateTask

NOTEBOOK = """\
generator = pipeline('text-generation', model='gpt2')
generator("Hello, I am Agney and I am a Software Developer at", max_length=30, num_return_sequences=3)
generator(text, max_length=30, num_return_sequences=1, do_sample=False)
generator(text, max_length=30, num_return_sequences=1, do_sample=True)"""
# Of a seed only the lowest 32 bits count on a CPU, and eight sequences count up from it.
HIGHEST_SEED = 2**32 - 9

other_pages.go_where_asked()
st.title("Generation")
st.markdown(
    "The model continues the prompt one token at a time. Hover over a token to see what else could have come; "
    "**click it to take another one**, and a branch grows from there."
)
inputs = prompt.require()
facts = cache.geometry(inputs.model)
if "logits" in facts.closed_views:
    show_problem(facts.closed_views["logits"])
    st.stop()
n_prompt = len(inputs.token_ids)
room = facts.context_length - n_prompt
if room < 1:
    show_problem(
        f"The prompt fills the whole context of {facts.context_length:,} tokens, so there is no room for a new one. "
        "Shorten the prompt by at least one token."
    )
    st.stop()

output_column, settings_column = st.columns([2, 1], gap="large")
with settings_column:
    sampling_sliders.pick_preset("generation", n_prompt_tokens=n_prompt, context_length=facts.context_length)
    mode = link.pick_option(
        "How",
        ("Draw", "Greedy", "Beam search"),
        key="generation_mode",
        default="Draw",
        explanation="Draw: at random, from the distribution that the settings leave. Greedy: always the most probable "
        "token. Beam search: keep several unfinished texts and look for the most probable whole.",
    )
    max_new_tokens = link.enter_integer(
        f"New tokens (1–{room:,})",
        key="generation_max_new_tokens",
        low=1,
        high=room,
        default=min(40, room),
        bound=f"{facts.context_length:,} tokens of context, {n_prompt:,} of them prompt",
        explanation=GENERATION_RANGES["max_new_tokens"].explanation,
    )
    st.caption(
        f"{n_prompt:,} of the prompt + {max_new_tokens:,} new = {n_prompt + max_new_tokens:,} of "
        f"{facts.context_length:,} tokens that the context holds"
    )
    seed, n_sequences = 42, 1
    # Greedy too: settings that stand beside it may draw.
    if mode != "Beam search":
        with st.container(horizontal=True, vertical_alignment="bottom"):
            seed = link.enter_integer(
                "Seed",
                key="generation_seed",
                low=0,
                high=HIGHEST_SEED,
                default=42,
                explanation=GENERATION_RANGES["seed"].explanation,
            )
            st.button(
                ":material/casino:",
                key="generation_reroll",
                help="Another seed, by chance",
                on_click=playground.reroll,
                args=("generation_seed", HIGHEST_SEED),
            )
    if mode == "Draw":
        n_sequences = int(
            link.pick_number(
                "Sequences",
                key="generation_n_sequences",
                low=1,
                high=8,
                step=1,
                default=1,
                explanation=GENERATION_RANGES["n_sequences"].explanation,
            )
        )
        sampling = sampling_sliders.draw("generation", model=inputs.model, arranged=True)
        stage_order.draw("generation", sampling)
    elif mode == "Greedy":
        sampling = sampling_sliders.draw(
            "generation",
            stages=("repetition_penalty", "no_repeat_ngram", "presence_penalty", "frequency_penalty"),
            model=inputs.model,
        )
    else:
        chosen_beams: dict[str, float] = {}
        for name in ("n_beams", "n_return", "length_penalty"):
            bounds = GENERATION_RANGES[name]
            # No more texts can be returned than there are beams.
            most = chosen_beams["n_beams"] if name == "n_return" else bounds.slider[1]
            chosen_beams[name] = link.pick_number(
                bounds.label,
                key=f"generation_{name}",
                low=bounds.slider[0],
                high=most,
                step=bounds.slider[2],
                default=min(bounds.default, most),
                explanation=bounds.explanation,
            )
        sampling = sampling_sliders.draw("generation", stages=("repetition_penalty", "no_repeat_ngram"))
        st.caption(
            "Beam search draws nothing, and of the other settings it has these alone: logit bias, presence and "
            "frequency penalty, temperature, filters and stop strings have no part in it."
        )
    stop_strings = () if mode == "Beam search" else sampling_sliders.enter_stop_strings("generation")

try:
    if mode == "Beam search":
        searching = BeamSettings(
            n_beams=int(chosen_beams["n_beams"]),
            n_return=int(chosen_beams["n_return"]),
            length_penalty=chosen_beams["length_penalty"],
            max_new_tokens=max_new_tokens,
            repetition_penalty=sampling.repetition_penalty,
            no_repeat_ngram=sampling.no_repeat_ngram,
        )
    else:
        chosen = GenerationSettings(
            sampling=sampling,
            max_new_tokens=max_new_tokens,
            do_sample=mode == "Draw",
            seed=seed,
            stop_strings=stop_strings,
        )
        with settings_column:
            others = beside.pick(chosen)
            if others and n_sequences > 1:
                st.caption(
                    f"Beside other settings each makes one text: the {n_sequences} sequences have no part."
                )
            int8 = int8_switch.pick(inputs.model)
        drawing = GenerateTask(
            model=inputs.model,
            token_ids=inputs.token_ids,
            settings=chosen,
            n_sequences=1 if others else n_sequences,
            others=others,
            precision="int8" if int8 else "float32",
            keep=True,
        )
except GptCoreError as error:
    show_error(error)
    st.stop()

with output_column:
    if mode == "Beam search":
        search = BeamTask(model=inputs.model, token_ids=inputs.token_ids, settings=searching)
        beam_view.draw(search)
        settings: BeamSettings | tuple[GenerationSettings, ...] = beam_view.on_screen(search)
        taken_ids: tuple[int, ...] = ()
        precision = "float32"
    else:
        colour = link.pick_option(
            "Colour the tokens by",
            COLOURS,
            key="generation_colour",
            default="probability",
            explanation="Probability: the more probable, the stronger. Rank: strongest for the favourite, weaker for "
            "the first 10 and 100. Entropy: the more open the choice was, the stronger.",
        )
        playground.draw(drawing, colour)
        settings, taken_ids, precision = branch_details.on_screen(drawing)

show_sources(
    "generation",
    functions=(
        "gpt_core.generation.generate_tokens",
        "gpt_core.sampling.filter_logits",
        "gpt_core.sampling.draw_token",
        "gpt_core.beams.beam_steps",
        "gpt_core.decode_fast.FastDecoder",
    ),
    snippet=lambda: cache.generation_snippet(
        inputs.model, inputs.text, settings, inputs.special_tokens, taken_ids
    ),
    notebook=NOTEBOOK,
    gives="gives what is on the screen"
    if precision == "float32"
    else "gives the text that float32 makes; the one on the screen was made in int8, and may be another",
)
