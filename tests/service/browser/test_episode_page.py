"""One episode: every camera shows the same instant, the cursor and the drawn hands follow, and what is missing is named in its place."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.service.browser.conftest import SIZES, Site, opened, serving, uid_from
from tests.service.browser.test_shell import serious_findings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RATE_HZ = 10.0
# Plays, again from the beginning where that is not enough, until the first video has shown `atLeast` frames; at each of them, how far the
# others are from it. From `skewsAt` on, the first of the others is set back once; only what is seen after it was set right counts.
MEASURE = """
({skewsAt, atLeast}) => new Promise((resolve) => {
  const [master, ...others] = document.querySelectorAll("video");
  const spread = [];
  const play = document.getElementById("play");
  let [isSkewed, isDone] = [skewsAt === null, false];
  const sample = (_, {mediaTime}) => {
    if (isDone) return;
    master.requestVideoFrameCallback(sample);
    if (!isSkewed && mediaTime >= skewsAt && !others[0].seeking) {
      isSkewed = true;
      others[0].currentTime = 0;
    } else if (isSkewed && !master.ended && others.every((each) => !each.seeking)) {
      spread.push(Math.max(...others.map((each) => Math.abs(each.currentTime - master.currentTime))));
    }
    if (spread.length < atLeast) return;
    isDone = true;
    if (play.ariaLabel === "Pause") play.click();
    resolve(spread);
  };
  master.addEventListener("ended", () => isDone || setTimeout(() => play.click(), 0));
  master.requestVideoFrameCallback(sample);
  play.click();
})
"""
# Both keys in one task: no video can end between them, however slow the machine is.
PRESS_TWICE = """
(key) => [1, 2].map(() => {
  document.activeElement.blur(); // a control keeps the key for itself
  document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  return [document.getElementById("play").ariaLabel, ...[...document.querySelectorAll("video")].map((video) => video.paused)];
})
"""


@pytest.fixture(scope="session")
def robot(demo_site: Site) -> str:
    return f"/episodes/{uid_from(demo_site, filter='source:eq:agibot_world')}"


@pytest.fixture(scope="session")
def person(demo_site: Site) -> str:
    return f"/episodes/{uid_from(demo_site, filter='source:eq:egodex')}"


def wait_for_frames(page: Page) -> None:
    """Until every video has the picture of its time."""
    page.evaluate(
        """() => Promise.all([...document.querySelectorAll("video")].map((video) => new Promise((resolve) => {
            const look = () => (video.readyState >= 2 && !video.seeking ? resolve() : setTimeout(look, 20));
            look();
        })))"""
    )


def times(page: Page) -> list[float]:
    wait_for_frames(page)
    values: list[float] = page.evaluate(
        "[...document.querySelectorAll('video')].map((video) => video.currentTime)"
    )
    return values


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_axe_finds_nothing_serious(
    chromium: Browser, demo_site: Site, person: str, size: str
) -> None:
    with opened(
        chromium, demo_site, person, size, {"wide": "dark", "narrow": "light"}[size]
    ) as page:
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        page.wait_for_selector("#similar li")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious_findings(page) == []


def test_a_panel_that_failed_asks_again_when_it_is_opened_again(
    chromium: Browser, demo_site: Site, robot: str
) -> None:
    with opened(chromium, demo_site, robot, without="**/geometry*") as page:
        busy = {"error": {"code": "busy", "message": "other episodes are being compared"}}
        page.route("**/similar*", lambda route: route.fulfill(status=503, json=busy), times=1)
        page.click("#similar summary")
        page.wait_for_selector("#similar .failure")
        page.click("#similar summary")
        page.click("#similar summary")
        page.wait_for_selector("#similar li")


@pytest.fixture(scope="module")
def robot_page(chromium: Browser, demo_site: Site, robot: str) -> Iterator[Page]:
    """One page for the tests of the clock: each begins where it likes."""
    with opened(chromium, demo_site, f"{robot}?t=3") as page:
        yield page


def seek(page: Page, timestep: int) -> None:
    page.evaluate(
        """(timestep) => {
            const slider = document.getElementById("timestep");
            slider.value = timestep;
            slider.dispatchEvent(new Event("input"));
        }""",
        timestep,
    )
    wait_for_frames(page)


def test_all_videos_play_within_one_frame_of_each_other(robot_page: Page) -> None:
    seek(robot_page, 0)
    spread = robot_page.evaluate(MEASURE, {"skewsAt": None, "atLeast": 12})
    assert max(spread) <= 1 / RATE_HZ


def test_a_video_that_falls_behind_is_set_right(robot_page: Page) -> None:
    seek(robot_page, 0)
    spread = robot_page.evaluate(MEASURE, {"skewsAt": 0.8, "atLeast": 6})
    assert max(spread) <= 1 / RATE_HZ


def test_a_step_moves_every_camera_and_the_cursor_by_one_frame(robot_page: Page) -> None:
    page = robot_page
    seek(page, 3)
    assert times(page) == pytest.approx([0.35, 0.35])
    reading = page.inner_text(".reading >> nth=0")
    left = cursor(page)
    page.keyboard.press("ArrowRight")
    assert times(page) == pytest.approx([0.45, 0.45])
    assert page.inner_text(".reading >> nth=0") != reading
    assert cursor(page) > left
    assert page.inner_text(".time").endswith(" · timestep 4")
    page.wait_for_url("**?t=4")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert times(page) == pytest.approx([0.25, 0.25])


def cursor(page: Page) -> float:
    left: float = page.evaluate("document.querySelector('.cursor').getBoundingClientRect().left")
    return left


def test_space_plays_and_pauses(robot_page: Page) -> None:
    seek(robot_page, 0)
    assert robot_page.evaluate(PRESS_TWICE, " ") == [
        ["Pause", False, False],
        ["Play", True, True],
    ]


def test_segments_captions_and_provenance_are_there(robot_page: Page) -> None:
    page = robot_page
    assert "true actions" in page.inner_text(".tier-block")
    captions = page.locator("text=Source text >> xpath=ancestor::table")
    assert "pick up box" in captions.inner_text()
    assert "Pick up the box" in captions.inner_text()
    assert set(captions.locator("del").all_inner_texts()) == {"the"}
    assert captions.locator("ins").count() == 0
    (rule,) = page.locator(".reasons > li").all_inner_texts()  # its comparisons stand together
    assert rule.count("true actions") == 1
    assert "idle_share at most 0.5 (it is 0)" in rule
    page.click("text=Provenance")
    assert "sha256:" in page.inner_text("details[open]")
    assert page.locator(".fault").count() > 0


def longest_shared(before: tuple[str, ...], after: tuple[str, ...]) -> int:
    """The number of words of a longest common subsequence, by trying both ways."""
    if not before or not after:
        return 0
    if before[0] == after[0]:
        return 1 + longest_shared(before[1:], after[1:])
    return max(longest_shared(before[1:], after), longest_shared(before, after[1:]))


def test_the_words_that_two_texts_share_are_as_many_as_can_be(robot_page: Page) -> None:
    draw = random.Random(1)
    texts = [" ".join(draw.choices(["pick", "up", "Up,", "the", "box."], k=7)) for _ in range(24)]
    pairs = [*pairwise(texts), ("", "box"), ("the box", "")]
    answers = robot_page.evaluate(
        """async (pairs) => {
            const {wordDifference} = await import("/static/words.js");
            return pairs.map(([before, after]) => wordDifference(before, after));
        }""",
        pairs,
    )
    for pair, answer in zip(pairs, answers, strict=True):
        sides = [answer["before"], answer["after"]]
        assert [" ".join(word for word, _ in side) for side in sides] == list(pair)
        shared = [[word.lower().strip(",.") for word, same in side if same] for side in sides]
        assert shared[0] == shared[1]
        words = [tuple(text.lower().replace(",", "").replace(".", "").split()) for text in pair]
        assert len(shared[0]) == longest_shared(words[0], words[1])


def test_a_hand_is_drawn_over_the_hand_of_the_picture(
    chromium: Browser, demo_site: Site, person: str
) -> None:
    """The generator draws hands in light skin on a dark ground: most of the drawn bones lie on it."""
    with opened(chromium, demo_site, f"{person}?t=5") as page:
        wait_for_frames(page)
        on, drawn = page.evaluate(
            """() => {
              const [video, drawn] = [document.querySelector("video"), document.querySelector(".picture canvas")];
              const {width, height} = drawn;
              const under = Object.assign(document.createElement("canvas"), {width, height}).getContext("2d");
              under.drawImage(video, 0, 0, width, height);
              const [a, b] = [drawn.getContext("2d"), under].map((each) => each.getImageData(0, 0, width, height).data);
              const ground = b.slice(0, 3);
              let [on, all] = [0, 0];
              for (let k = 0; k < a.length; k += 4) if (a[k + 3] > 200) {
                all += 1;
                on += Math.hypot(...[0, 1, 2].map((c) => b[k + c] - ground[c])) > 40;
              }
              return [on, all];
            }"""
        )
        assert drawn > 300
        assert on > 0.8 * drawn


def test_the_neighbours_are_those_of_the_selection(
    chromium: Browser, demo_site: Site, robot: str
) -> None:
    address = f"{robot}?filter=source%3Aeq%3Aagibot_world"
    with opened(chromium, demo_site, address, without="**/geometry") as page:
        seen = [page.url]
        while page.locator("a#next-episode").count():
            page.keyboard.press("j")
            page.wait_for_url(lambda url: url != seen[-1])
            page.wait_for_selector("html[data-ready]")
            seen.append(page.url.partition("&t=")[0])
        assert len(seen) == len(set(seen)) == 3
        assert all("filter=source" in url for url in seen)


def test_a_video_that_has_gone_leaves_its_message_and_the_rest(
    chromium: Browser, robots_and_hands: Path, robot: str, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(robots_and_hands, corpus)
    for video in corpus.glob("datasets/agibot_world/*/videos/*/observation.images.head/*.mp4"):
        video.unlink()
    with (
        serving(corpus, tmp_path / "state") as site,
        opened(chromium, site, robot, without="**/geometry") as page,
    ):
        page.wait_for_selector(".missing")
        assert page.inner_text(".missing").startswith("No video")
        assert page.locator("video").count() == 1
        page.keyboard.press("ArrowRight")
        assert times(page) == pytest.approx([0.15])
        assert page.locator(".plot .main-svg").count() > 0


def test_a_video_that_the_browser_does_not_play_is_shown_as_single_frames(
    chromium: Browser, demo_site: Site, robot: str
) -> None:
    """As Firefox and Safari answer for H.264 without loss: an empty picture would say nothing."""
    with opened(chromium, demo_site, robot, without="**/geometry") as page:
        count = page.locator("video").count()
        assert count > 0
        page.add_init_script("HTMLMediaElement.prototype.canPlayType = () => ''")
        page.reload()
        page.wait_for_selector("html[data-ready]")
        for timestep in range(2):
            page.wait_for_function(
                """([count, timestep]) => {
                  const images = [...document.querySelectorAll(".picture img")];
                  return images.length === count && images.every((each) => each.naturalWidth && each.src.includes(`/frames/${timestep}/`));
                }""",
                arg=[count, timestep],
            )
            page.keyboard.press("ArrowRight")
        assert page.locator("video").count() == 0
        notice = page.inner_text(".stills >> nth=0")
        assert "this browser does not play this video (avc1." in notice


def test_an_episode_that_is_not_there_is_named(chromium: Browser, demo_site: Site) -> None:
    with opened(chromium, demo_site, "/episodes/no-such-uid") as page:
        assert "no episode 'no-such-uid'" in page.inner_text("main")
        assert page.get_attribute("main section a", "href") == "/episodes"
