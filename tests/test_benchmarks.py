"""The scripts of `benchmarks/` still run: each tells its options, and those that replace parts of a control fit it."""

import sys

import pytest
from conftest import BENCHMARKS

SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if "ArgumentParser" in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_tells_its_options(script, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        script(name).main()
    assert not ended.value.code
    assert f"{name}.py" in capsys.readouterr().out


def test_every_way_to_place_words_fits_the_control(script, shakespeare):
    fluency, ngram = script("must_include_fluency"), script("ngram_placement")
    ngram.NGramPlacement.train("the king and the queen of the land " * 3)
    written = {}
    for way in fluency.WAYS:
        (written[way],) = fluency.write(shakespeare, way, ["king"], "To be", 24, "sample", seed=3, samples=1)
    assert {way for way, text in written.items() if "king" not in text.lower()} <= {"free"}
    assert len({*written.values()}) > 3
