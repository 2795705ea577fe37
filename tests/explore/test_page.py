"""The page: it lets nothing in, whatever files are called, and does what it says in a browser."""

import base64
import dataclasses
import hashlib
import json
import re
import time

import numpy as np
import pytest
from PIL import Image

from simsiam_keras.evaluation.knn import unit
from simsiam_keras.explore import near, page, sprites
from simsiam_keras.explore.collection import Collection
from simsiam_keras.gallery import pictures
from tests.explore import browser

EVIL = "<img src=x onerror=alert(1)>.jpg"
SCRIPT = "</script><script>alert(2)</script>.jpg"
NAMES = [EVIL, SCRIPT, "a/{{title}}.jpg", "a/$& 100%.jpg", "b/déjà vu.jpg", "b/two\nlines.jpg"]
needs_browser = pytest.mark.skipif(not browser.program(), reason="needs Chromium")


def made(tmp_path, n=12, **changes):
    """A collection of pictures of one colour each on a grid of four columns, and its page."""
    names = [*NAMES, *(f"c/{i}.jpg" for i in range(len(NAMES), n))]
    folder = tmp_path / "photos"
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if i != 7:  # which is missing
            Image.new("RGB", (60, 40), (20 * i, 255 - 20 * i, 128)).save(path, "JPEG")
    angles = np.linspace(0, np.pi / 2, n)  # neighbours in the order of their numbers
    values = {
        "title": EVIL,
        "root": str(folder),
        "names": names,
        "splits": ["train"] * (n // 2) + ["test"] * (n - n // 2),
        "labels": np.arange(n) % 3 - 1,
        "class_names": ["cat & <b>dog</b>", "</style>"],
        "vectors": np.stack([np.cos(angles), np.sin(angles)], 1).astype("float32"),
        "pictures": pictures.Files(folder, names),
        "encoder": "sha256:0123",
    }
    collection = Collection(**{**values, **changes})
    points = np.stack([np.arange(n) % 4 / 3, np.arange(n) // 4 / 3], 1)
    nearest = near.nearest(unit(collection.vectors), 3)
    cluster = np.arange(n) // 6
    content = page.content(collection, points, cluster, ["1", "2: <i>x</i>"], nearest, [])
    return collection, content


def written(tmp_path, beside=False):
    collection, content = made(tmp_path)
    path = tmp_path / "explore.html"
    page.write(path, content, sprites.make(collection.pictures, 12, 48), beside)
    return path


def elements(text):
    """The names of the elements of a page, in order, as a browser would see them."""
    # What is within a script or a style is no element.
    bare = re.sub(r"(<(script|style)\b[^>]*>).*?(</\2>)", r"\1\3", text, flags=re.DOTALL)
    return re.findall(r"<(/?[a-zA-Z][a-zA-Z0-9]*)", bare)


def test_names_add_no_element(tmp_path):
    text = written(tmp_path).read_text("utf-8")
    plain = page.template("page.html")
    assert elements(text) == elements(plain)
    assert elements(text.replace("&lt;", "<")) != elements(plain)
    assert "onerror=alert" in text and "<img" not in text.replace("\\u003cimg", "")


def test_the_policy_has_the_digests_of_what_stands_there(tmp_path):
    text = written(tmp_path).read_text("utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search("https?:", text)


def read(text):
    (inside,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(inside)


def unpacked(part):
    return np.frombuffer(base64.b64decode(part["data"]), "<" + part["kind"])


def test_the_page_holds_what_it_was_given(tmp_path):
    collection, _ = made(tmp_path)
    data = read(written(tmp_path).read_text("utf-8"))
    assert data["names"] == collection.names and data["title"] == EVIL
    assert [c["title"] for c in data["colourings"]] == ["label", "cluster", "split"]
    assert unpacked(data["colourings"][0]["of"]).tolist() == collection.labels.tolist()
    assert data["colourings"][2]["names"] == ["train", "test"]
    points = unpacked(data["points"]).reshape(-1, 2) / 65535
    np.testing.assert_allclose(points[5], [1 / 3, 1 / 3], atol=1e-4)
    similarity, index = near.nearest(unit(collection.vectors), 3)
    assert unpacked(data["nearest"]["index"]).reshape(12, 3).tolist() == index.tolist()
    found = unpacked(data["nearest"]["similarity"]).reshape(12, 3) / 10000
    np.testing.assert_allclose(found, similarity, atol=6e-5)
    assert [number for number, _ in data["missing"]] == [7]


def test_a_large_data_set_has_wider_numbers(tmp_path):
    _, content = made(tmp_path, n=16)
    assert content["nearest"]["index"]["kind"] == "u2"
    many = np.arange(70_000)
    assert unpacked(page.packed(many, "u4")).tolist() == many.tolist()


def test_without_labels_and_with_names_of_no_text(tmp_path):
    _, content = made(tmp_path, labels=None, splits=["all"] * 12)
    assert [c["title"] for c in content["colourings"]] == ["cluster"]
    collection, _ = made(tmp_path)
    names = [*collection.names[:-1], "x\udcff.jpg"]
    _, content = made(tmp_path)
    content = page.content(
        dataclasses.replace(collection, names=names),
        np.zeros((12, 2)),
        np.zeros(12, np.int64),
        ["1"],
        near.nearest(unit(collection.vectors), 3),
        [],
    )
    assert content["names"][-1] == "x\\udcff.jpg"
    page.in_script(content).encode("utf-8")


# In a browser


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with browser.opened(written(folder), downloads=folder, size=(1200, 800)) as found:
        found.folder = folder
        yield found


PLACE = "(([x, y], f) => [x + f.left, y + f.top])(toScreen({}), canvas.getBoundingClientRect())"


def place(shown, number):
    return shown.value(PLACE.format(number))


def again(shown):
    shown.value(
        "pick(-1); choose([], false); setTool('pan'); element('search').value = ''; search();"
        "element('colour').value = 0; element('colour').dispatchEvent(new Event('change'));"
        "hideAll(false); showWhole(); state.current = -1; draw()"
    )


def chosen(shown):
    return shown.value("chosenNumbers()")


@needs_browser
def test_nothing_of_a_name_runs_and_nothing_is_asked_of_a_network(shown):
    for number in range(12):
        shown.value(f"goTo({number}); pick({number})")
        shown.value("element('colour').value = 1; fillLegend()")
    again(shown)
    assert shown.problems == []
    assert {url.partition(":")[0] for url in shown.requests} <= {"file", "data"}
    assert shown.value("document.querySelectorAll('img, script').length") == 2  # its own scripts
    assert shown.value("document.title") == EVIL


@needs_browser
def test_the_policy_refuses_what_is_put_in(shown):
    """What the page would run if a name did get in."""
    before = len(shown.problems)
    shown.value(f"element('about').innerHTML = {json.dumps(EVIL)}")
    time.sleep(0.3)
    shown.value("1")
    assert any("Content Security Policy" in p for p in shown.problems[before:])
    assert not any("dialog" in p for p in shown.problems)
    del shown.problems[before:]
    shown.value("element('about').textContent = ''")


@needs_browser
def test_the_pointer_shows_and_a_click_finds_neighbours(shown):
    again(shown)
    shown.mouse("Moved", *place(shown, 5))
    shown.wait("!element('hover').hidden")
    assert "two\nlines.jpg" in shown.value("element('hover').querySelector('p').textContent")
    red, green, _ = shown.value(
        "(() => { const c = element('hover').querySelector('canvas');"
        "const middle = [c.width / 2, c.height / 2, 1, 1];"
        "return Array.from(c.getContext('2d').getImageData(...middle).data) })()"
    )[:3]
    assert abs(red - 100) < 8 and abs(green - 155) < 8  # the picture of number 5
    shown.click(*place(shown, 5))
    names = shown.value(
        "Array.from(document.querySelectorAll('#neighbours button'), (b) => b.textContent)"
    )
    assert [name.split(" ", 1)[1] for name in names[:2]] == ["déjà vu.jpg", "6.jpg"]
    assert names[0].startswith("0.990 ")  # the cosine of 90 / 11 degrees
    address = shown.value("document.querySelector('#picture a').href")
    assert address.endswith("/photos/b/two%0Alines.jpg") and address.startswith("file:///")
    x, y = place(shown, 5)
    shown.click(x + 60, y + 60)  # beside
    assert shown.value("element('picked').hidden")


@needs_browser
def test_what_lies_in_a_lasso_is_exported(shown):
    again(shown)
    shown.value("element('lasso').click()")
    corners = [place(shown, number) for number in (0, 1, 5, 4)]  # a square of the grid
    middle = np.mean(corners, 0)
    line = [(middle + 1.2 * (np.array(c) - middle)).tolist() for c in corners]
    shown.drag([*line, line[0]])
    assert chosen(shown) == [0, 1, 4, 5]
    shown.value("element('export').click()")
    path = shown.folder / "selected.txt"
    end = time.monotonic() + 20
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    root = str(shown.folder / "photos")
    expected = [EVIL, SCRIPT, "b/déjà vu.jpg", "b/two\\nlines.jpg"]
    assert path.read_text("utf-8") == "".join(f"{root}/{name}\n" for name in expected)


@needs_browser
def test_a_box_adds_with_shift_and_leaves_out_what_is_hidden(shown):
    again(shown)
    shown.value("setTool('box')")
    first, last = np.array(place(shown, 8)), np.array(place(shown, 11))
    shown.drag([(first - 15).tolist(), (last + 15).tolist()])
    assert chosen(shown) == [8, 9, 10, 11]
    shown.value("document.querySelector('#legend button').click()")  # hides label 0: 1, 4, 7, 10
    low, high = np.array(place(shown, 0)), np.array(place(shown, 3))
    shown.drag([(low - 15).tolist(), (high + 15).tolist()], modifiers=8)
    assert chosen(shown) == [0, 2, 3, 8, 9, 10, 11]
    assert shown.value("element('count').textContent") == "7 pictures selected."


@needs_browser
def test_the_keyboard_does_all_of_it(shown):
    again(shown)
    shown.value("canvas.focus(); goTo(0)")
    for key, expected in (("ArrowRight", 1), ("ArrowUp", 5), ("ArrowLeft", 4), ("ArrowLeft", 4)):
        shown.key(key)
        assert shown.value("state.current") == expected, key  # numbers rise upwards
    assert "déjà vu.jpg" in shown.value("element('status').textContent")
    shown.key(" ")
    assert chosen(shown) == [4]
    shown.key("Enter")
    assert shown.value("state.picked") == 4 and not shown.value("element('picked').hidden")
    scale = shown.value("view.scale")
    shown.key("+")
    assert shown.value("view.scale") == pytest.approx(1.4 * scale)
    shown.key("-")
    shown.key("0")
    assert shown.value("view.scale") == pytest.approx(scale)
    shown.key("l")
    assert shown.value("element('lasso').getAttribute('aria-pressed')") == "true"
    shown.key("Escape")
    assert shown.value("state.picked") == -1 and chosen(shown) == [4]
    shown.key("Escape")
    assert chosen(shown) == []
    shown.key("Tab")
    assert shown.value("document.activeElement.id") == "colour"
    focused = "getComputedStyle(document.activeElement).outlineStyle"
    assert shown.value(focused) != "none"


@needs_browser
def test_a_search_finds_names(shown):
    again(shown)
    shown.value(
        "element('search').value = 'C/1'; element('search').dispatchEvent(new Event('input'))"
    )
    assert shown.value("foundNumbers()") == [10, 11]
    assert shown.value("element('status').textContent") == "2 names found."
    shown.value("element('search').focus()")
    for expected in (10, 11, 10):
        shown.key("Enter")
        assert shown.value("state.current") == expected
    shown.value("element('take').click()")
    assert chosen(shown) == [10, 11]


@needs_browser
def test_colours_and_the_legend(shown):
    again(shown)
    words = "Array.from(element('legend').children, (b) => b.textContent)"
    assert shown.value(words) == ["cat & <b>dog</b>4", "</style>4", "unknown4"]
    shown.value("element('colour').value = 1; element('colour').dispatchEvent(new Event('change'))")
    assert shown.value(words) == ["16", "2: <i>x</i>6"]
    shown.value("element('none').click()")
    assert shown.value("Array.from(Array(12).keys()).filter(isShown)") == []
    shown.value("element('legend').children[1].click()")
    assert shown.value("Array.from(Array(12).keys()).filter(isShown)") == list(range(6, 12))
    unread = shown.value("element('unread').textContent")
    assert "1 picture could not be read" in unread and "c/7.jpg" in unread


@needs_browser
def test_thumbnails_beside_the_page_are_shown(tmp_path):
    path = written(tmp_path, beside=True)
    files = sorted(p.name for p in (tmp_path / "explore_thumbnails").iterdir())
    assert files == ["0000.jpg"] and b"base64,/9j" not in path.read_bytes()
    with browser.opened(path) as shown:
        shown.value("pick(3)")
        shown.wait("sheetOf(3).complete && sheetOf(3).naturalWidth === 576")
        assert shown.problems == []


@needs_browser
def test_dark_is_dark(tmp_path):
    path = written(tmp_path)
    code = "Array.from(pen.getImageData(2, 2, 1, 1).data.slice(0, 3))"
    with browser.opened(path, dark=True) as dark:
        assert max(dark.value(code)) < 60
    with browser.opened(path) as light:
        assert min(light.value(code)) > 200
