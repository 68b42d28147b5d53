"""What each probe makes of a sample, without a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from keygap.benchmarks import Piece, Sample
from keygap.bias import PROBES, Samples, Unfit
from keygap.errors import UserError
from made import bench_of

COLOURS = ("red", "blue", "green", "black")


def coloured(number: int, **changes) -> Sample:
    colour = COLOURS[number % 4]
    question = ("What colour is it?", "Which colour is this?")[number // 4 % 2]
    prompt = (Piece("image"), Piece("text", text=question))
    made = Sample(
        id=f"s{number}",
        images=(Image.new("RGB", (32, 24), colour),),
        question=question,
        prompt=prompt,
        answer=colour,
        subject="colour",
        caption=f"a {colour} square",
    )
    return replace(made, **changes)


def those_of(*samples: Sample, seed: int = 0) -> Samples:
    return Samples(bench_of(list(samples)).choose(None), seed)


@pytest.fixture
def samples() -> Samples:
    return those_of(*(coloured(number) for number in range(8)))


def conditions_of(name: str, **settings):
    return {(each.name, each.variant): each for each in PROBES[name](**settings).conditions}


def text_of(sample: Sample) -> str:
    return "".join(piece.text for piece in sample.prompt)


@pytest.mark.parametrize("name", list(PROBES))
def test_every_probe_begins_with_the_sample_as_it_is(name, samples):
    first = PROBES[name]().conditions[0]
    sample = samples.sample_set.sample(0)
    assert first.name == "as_is"
    assert first.make(sample, samples).sample is sample


@pytest.mark.parametrize("name", list(PROBES))
def test_a_condition_compares_with_conditions_that_exist(name):
    conditions = PROBES[name]().conditions
    names = {each.name for each in conditions}
    assert len({(each.name, each.variant) for each in conditions}) == len(conditions)
    for each in conditions:
        assert {each.image_only, each.text_only} <= {"", *names}


@pytest.mark.parametrize("name", list(PROBES))
def test_variants_keep_the_id_and_do_not_depend_on_the_batch(name, samples):
    sample = samples.sample_set.sample(3)
    fewer = replace(samples, sample_set=samples.sample_set)
    for condition in PROBES[name]().conditions:
        one, other = condition.make(sample, samples), condition.make(sample, fewer)
        assert one.sample.id == sample.id
        assert one.suggested == other.suggested
        assert text_of(one.sample) == text_of(other.sample)
        pairs = zip(one.sample.images, other.sample.images, strict=True)
        assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_hints_name_the_same_wrong_answer_in_every_phrasing(samples):
    sample = samples.sample_set.sample(0)
    conflict = [each for key, each in conditions_of("hint").items() if key[0] == "conflict"]
    made = [each.make(sample, samples) for each in conflict]
    assert len(made) == 8  # four phrasings, before and after
    (wrong,) = {each.suggested for each in made}
    assert wrong in COLOURS
    assert wrong != "red"
    texts = [text_of(each.sample) for each in made]
    assert len(set(texts)) == 8
    assert all(wrong in text for text in texts)
    for each in made:
        roles = [piece.role for piece in each.sample.prompt if piece.kind == "text"]
        assert sorted(roles) == ["hint", "question"]
    assert sum(text.startswith("What colour is it?\n") for text in texts) == 4
    assert sum(text.endswith("\nWhat colour is it?") for text in texts) == 4


def test_a_wrong_answer_is_another_option_where_there_are_options():
    sample = coloured(0, options=("red", "blue", "green"), answer="A")
    samples = those_of(sample, coloured(1))
    wrong = {replace(samples, seed=seed).wrong_answer(sample, "hint") for seed in range(30)}
    assert wrong == {"B", "C"}


def test_a_wrong_answer_is_of_the_same_subject():
    shape = coloured(1, id="shape", subject="shape", answer="circle")
    samples = those_of(coloured(0), coloured(2), shape)
    assert samples.wrong_answer(samples.sample_set.benchmark.sample(0), "hint") == "green"


def test_of_several_accepted_answers_a_hint_names_one_or_none_of_them():
    several = coloured(0, answer="['red', 'blue']")
    samples = those_of(several, *(coloured(number) for number in range(1, 4)))
    wrong = {replace(samples, seed=seed).wrong_answer(several, "hint") for seed in range(30)}
    assert wrong == {"green", "black"}
    agree = conditions_of("hint")["agree", "0 after newline"].make(several, samples)
    assert agree.suggested == "red"


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (coloured(0, answer=None), "not published"),
        (coloured(0), "no wrong answer of the same kind"),
        (coloured(0, answer="Red."), "no wrong answer of the same kind"),
    ],
)
def test_without_a_wrong_answer_a_sample_is_unfit(sample, said):
    samples = those_of(sample, coloured(0, id="same"), coloured(1, id="o", subject="other"))
    with pytest.raises(Unfit, match=said):
        conditions_of("hint")["conflict", "0 after newline"].make(sample, samples)


def test_an_irrelevant_description_is_that_of_any_sample_with_another_caption():
    others = [coloured(number, caption=None) for number in range(1, 6)]
    samples = those_of(coloured(0), *others, coloured(6), coloured(7, caption="a red square"))
    irrelevant = conditions_of("description")["irrelevant", ""]
    for seed in range(8):
        made = irrelevant.make(coloured(0), replace(samples, seed=seed))
        assert "Description: a green square" in text_of(made.sample)
    with pytest.raises(Unfit, match="no sample that shows another image has another caption"):
        irrelevant.make(coloured(0), those_of(coloured(0), *others))


@pytest.mark.parametrize("kind", ["matching", "corrupted"])
def test_of_several_accepted_answers_a_description_names_one_or_none(kind):
    several = coloured(0, answer="['24', 'twenty-four']", caption="Here are 24, twenty-four dots")
    samples = those_of(several, *(coloured(number) for number in range(1, 4)))
    made = conditions_of("description")[kind, ""].make(several, samples)
    if kind == "matching":
        assert made.suggested == "24"
    else:
        wrong = made.suggested
        assert wrong in COLOURS
        assert f"Here are {wrong}, {wrong} dots" in text_of(made.sample)


def test_a_caption_matches_where_the_right_answer_is_not_published():
    sample = coloured(0, answer=None)
    made = conditions_of("description")["matching", ""].make(sample, those_of(sample))
    assert made.suggested is None


def test_shuffled_samples_get_what_others_show_and_ask(samples):
    sample = replace(samples.sample_set.benchmark.sample(0), question="Mine?")
    sample = replace(sample, prompt=(Piece("image"), Piece("text", text="Mine?")))
    made = {
        key[0]: each.make(sample, samples).sample for key, each in conditions_of("shuffle").items()
    }
    own, others = sample.images[0].tobytes(), ("What colour is it?", "Which colour is this?")
    assert made["image_only"].images[0].tobytes() == own
    assert text_of(made["image_only"]) in others
    assert made["text_only"].images[0].tobytes() != own
    assert text_of(made["text_only"]) == "Mine?"
    assert made["neither"].images[0].tobytes() != own
    assert text_of(made["neither"]) in others


def test_an_image_that_all_samples_share_cannot_be_shuffled():
    samples = those_of(coloured(0), coloured(4), coloured(8))
    with pytest.raises(Unfit, match="no other sample asks another question"):
        conditions_of("shuffle")["image_only", ""].make(
            coloured(4), those_of(coloured(4), coloured(5))
        )
    with pytest.raises(Unfit, match="no other sample shows another image"):
        conditions_of("shuffle")["text_only", ""].make(coloured(0), samples)


def test_a_blank_image_has_one_colour_and_the_same_size(samples):
    picture = Image.fromarray(np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3))
    sample = coloured(0, images=(picture,))
    blank = conditions_of("blank")["blank", ""].make(sample, samples).sample.images[0]
    assert blank.size == (32, 24)
    assert len(blank.getcolors()) == 1
    mean = np.asarray(picture, float).mean((0, 1))
    assert np.abs(np.asarray(blank)[0, 0] - mean).max() <= 0.5
    black = conditions_of("blank", colour="black")["blank", ""].make(sample, samples)
    assert black.sample.images[0].getcolors() == [(32 * 24, (0, 0, 0))]


def test_noise_mixes_pixels_by_its_level(samples):
    sample = coloured(0)
    conditions = conditions_of("noise", levels=[0.25, 1.0])
    before = np.asarray(sample.images[0], float)
    made = {
        key[1]: np.asarray(each.make(sample, samples).sample.images[0], float)
        for key, each in conditions.items()
        if key[0] == "noise"
    }
    drawn = made["1"]
    assert np.abs(made["0.25"] - (0.75 * before + 0.25 * drawn)).max() <= 1
    assert 100 < drawn.mean() < 155


def test_a_corrupted_description_names_a_wrong_answer(samples):
    sample = samples.sample_set.sample(0)
    conditions = conditions_of("description")
    matching, corrupted, irrelevant = (
        conditions[kind, ""].make(sample, samples)
        for kind in ("matching", "corrupted", "irrelevant")
    )
    assert "a red square" in text_of(matching.sample)
    assert matching.suggested == "red"
    assert corrupted.suggested not in ("red", None)
    assert f"a {corrupted.suggested} square" in text_of(corrupted.sample)
    assert irrelevant.suggested is None
    assert "a red square" not in text_of(irrelevant.sample)
    roles = [piece.role for piece in corrupted.sample.prompt if piece.kind == "text"]
    assert roles == ["caption", "question", "question"]


@pytest.mark.parametrize(
    ("sample", "kind", "said"),
    [
        (coloured(0, caption=None), "matching", "no caption"),
        (coloured(0, caption="a square"), "corrupted", "does not name the right answer"),
        (coloured(0, caption="a bored square"), "corrupted", "does not name the right answer"),
    ],
)
def test_a_description_needs_a_caption(sample, kind, said):
    samples = those_of(sample, coloured(1), coloured(2))
    with pytest.raises(Unfit, match=said):
        conditions_of("description")[kind, ""].make(sample, samples)


def test_a_rendered_hint_is_in_the_image_and_not_in_the_prompt(samples):
    sample = samples.sample_set.sample(0)
    conditions = conditions_of("rendered", font_size=20, width=300)
    made = {key[0]: each.make(sample, samples).sample for key, each in conditions.items()}
    sizes = {made[name].images[0].size for name in ("canvas", "typed", "rendered")}
    assert len(sizes) == 1
    ((width, height),) = sizes
    assert width == 300
    assert height > 225
    canvas, drawn = (np.asarray(made[name].images[0]) for name in ("canvas", "rendered"))
    differs = (canvas != drawn).any((1, 2))
    assert differs.any()
    assert not differs[:225].any()  # the image itself is untouched
    assert (canvas[225:] == 255).all()
    assert text_of(made["rendered"]) == text_of(sample)
    assert "Hint: the answer is" in text_of(made["typed"])


def test_a_video_is_replaced_by_no_condition(samples):
    film = (tuple(Image.new("RGB", (8, 8)) for _ in range(2)),)
    sample = coloured(0, images=(), videos=film, prompt=(Piece("video"), Piece("text", text="?")))
    for name in ("blank", "noise", "rendered", "shuffle"):
        last = PROBES[name]().conditions[-1]
        with pytest.raises(Unfit, match="video"):
            last.make(sample, samples)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("hint", {"phrasings": ["no place"]}, "must contain {answer} once"),
        ("hint", {"phrasings": []}, "phrasings"),
        ("hint", {"positions": ["above"]}, "unknown position"),
        ("hint", {"separators": ["tab"]}, "unknown separator"),
        ("blank", {"colour": "reddish"}, "colour 'reddish' is not known"),
        ("noise", {"levels": [0]}, "above 0 and at most 1"),
        ("noise", {"levels": ["much"]}, "above 0 and at most 1"),
        ("rendered", {"font": "no-such-font.ttf"}, "cannot be read"),
        ("rendered", {"font_size": 1}, "font_size"),
        ("rendered", {"font": 5}, "font is 5: the path of a font file is needed, as text"),
        ("rendered", {"font": ["a.ttf"]}, "the path of a font file is needed"),
        ("rendered", {"phrasing": 5}, "the phrasing 5 must be text"),
        ("hint", {"phrasings": [5]}, "the phrasing 5 must be text"),
        ("hint", {"phrasings": [None]}, "the phrasing None must be text"),
        ("hint", {"positions": [5]}, "unknown position"),
        ("balance", {"phrasings": [0.5, "x"]}, "the phrasing 0.5 must be text"),
        ("balance", {"phrasings": ["x"]}, "must contain {answer} once"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(name, settings, said):
    with pytest.raises(UserError, match=said) as refusal:
        PROBES[name](**settings)
    assert "\n" not in str(refusal.value)
