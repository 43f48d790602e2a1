"""Files hold every number, and say where it comes from."""

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from gpt_core import attention_export
from gpt_core.attention import attention_maps
from gpt_core.attention_export import estimated_file_bytes, origin_of, write_maps
from gpt_core.errors import InputError, MemoryLimitError
from gpt_core.model import LanguageModel
from gpt_core.trace import trace_tokens
from tests.laws import TEXT

TinyLm = Callable[[str], LanguageModel]


def test_npz_holds_every_weight_and_its_origin(tiny_lm: TinyLm) -> None:
    trace = trace_tokens(tiny_lm("llama"), TEXT)
    data = write_maps(trace, layers=[2, 0], kind="npz", labels=["ö\udc80"] * 40)
    assert len(data) <= estimated_file_bytes(8, 40, kind="npz")
    file = np.load(io.BytesIO(data), allow_pickle=False)
    assert {name for name in file.files if name.startswith("layer_")} == {"layer_2", "layer_0"}
    for layer in (0, 2):
        assert file[f"layer_{layer}"].dtype == np.float32
        assert np.array_equal(
            file[f"layer_{layer}"],
            np.stack([attention_maps(trace, layer=layer, heads=[h]).weights[0] for h in range(4)]),
        )
    assert file["token_ids"].tolist() == list(TEXT)
    assert file["tokens"].tolist() == ["ö?"] * 40
    assert file["heads"].tolist() == [0, 1, 2, 3]
    assert str(file["model"]) == "local:tiny-llama"
    assert str(file["dtype"]) == "float32"
    assert "torch " in str(file["versions"])
    assert "transformers " in str(file["versions"])
    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None


def test_csv_holds_every_cell_and_its_origin(tiny_lm: TinyLm) -> None:
    trace = trace_tokens(tiny_lm("gpt2"), TEXT)
    data = write_maps(trace, layers=[1], heads=[3], kind="csv")
    assert len(data) <= estimated_file_bytes(1, 40, kind="csv")
    lines = data.decode().splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert [line.split(":")[0] for line in comments] == [
        "# model",
        "# revision",
        "# dtype",
        "# versions",
        "# token_ids",
    ]
    table = np.loadtxt(lines[len(comments) + 1 :], delimiter=",")
    assert table.shape == (40 * 41 // 2, 5)
    rebuilt = np.zeros((40, 40))
    rebuilt[table[:, 2].astype(int), table[:, 3].astype(int)] = table[:, 4]
    np.testing.assert_allclose(rebuilt, attention_maps(trace, layer=1, heads=[3]).weights[0], rtol=1e-7)
    assert set(table[:, 0]) == {1}
    assert set(table[:, 1]) == {3}


def test_origin_names_model_and_revision() -> None:
    origin = origin_of("bundled:small-gpt2@0123456789ab")
    assert (origin.model, origin.revision) == ("bundled:small-gpt2", "0123456789ab")
    assert origin_of("local:/a/b\nc").model == "local:/a/b c"  # one line, whatever a folder is called
    assert origin_of("local:x").revision == ""


def test_files_that_are_too_large_are_refused_before_they_are_made(
    tiny_lm: TinyLm, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = trace_tokens(tiny_lm("gpt2"), TEXT)
    monkeypatch.setattr(attention_export, "MAX_NPZ_BYTES", 4 * 4 * 1600)
    monkeypatch.setattr(attention_export, "MAX_CSV_ROWS", 2 * 820)
    assert write_maps(trace, layers=[0], kind="npz")
    assert write_maps(trace, layers=[0], heads=[0, 1], kind="csv")
    with pytest.raises(MemoryLimitError, match="one layer"):
        write_maps(trace, layers=[0, 1], kind="npz")
    with pytest.raises(InputError, match="spreadsheet"):
        write_maps(trace, layers=[0], heads=[0, 1, 2], kind="csv")
    with pytest.raises(InputError, match="layers"):
        write_maps(trace, layers=[], kind="npz")
