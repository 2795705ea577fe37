"""Folders as archives and people lay them out: the right splits and classes, or one sentence.

A row is what is made, `folder*count` each, and what is expected: the images of every class by
split, `(images, why)` without labels, or the words of the refusal.
"""

import functools
import json
import os
import re

import numpy as np
import pytest

from simsiam_keras.data import found, layouts, sources
from tests.data.pictures import fill
from tests.faults import fuzz

CATS = {"cat": 3, "dog": 2}
PLAIN = "no folder for each class"


def make(root, layout):
    """`a/b*3` is three images in a folder, `a/b.csv=text` a file, `a/b->c` a link."""
    for part in layout.split():
        if "->" in part:
            link, target = part.split("->")
            (root / link).parent.mkdir(parents=True, exist_ok=True)
            (root / link).symlink_to(target)
        elif "=" in part:
            file, text = part.split("=")
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text.replace(";;", "\n").replace("_", " "))
        else:
            folder, count = part.split("*")
            fill(root / folder, int(count))
    return root


def both(train, test):
    return f"{train}/cat*3 {train}/dog*2 {test}/cat*3 {test}/dog*2"


SPLITS = {"train": CATS, "test": CATS}
VALIDATED = {"train": CATS, "val": CATS}
LAYOUTS = {
    # As it always was.
    "flat": (".*4", {"train": (4, PLAIN)}),
    "classes": ("cat*3 dog*2", {"train": CATS, "all": CATS}),
    "classes of folders": ("cat/may*3 dog/june/first*2", {"train": CATS}),
    "one class": ("holiday*4", {"train": (4, "in one folder, `holiday`")}),
    "images beside classes": (".*1 cat*3 dog*2", {"train": (6, "1 images lie beside the class")}),
    # Names of splits.
    "train, test": (both("train", "test"), SPLITS),
    "Train, Test": (both("Train", "Test"), SPLITS),
    "TRAIN, TEST": (both("TRAIN", "TEST"), SPLITS),
    "Training, Testing": (both("Training", "Testing"), SPLITS),
    "training_set, test_set": (both("training_set", "test_set"), SPLITS),
    "training-set, test-set": (both("training-set", "test-set"), SPLITS),
    "trainset, testset": (both("trainset", "testset"), SPLITS),
    "train_images, test_images": (both("train_images", "test_images"), SPLITS),
    "images_train, images_test": (both("images_train", "images_test"), SPLITS),
    "train2017, val2017": (both("train2017", "val2017"), VALIDATED),
    "train, valid": (both("train", "valid"), VALIDATED),
    "train, Validation": (both("train", "Validation"), VALIDATED),
    "train, val as validation": (both("train", "val"), {"train": CATS, "validation": CATS}),
    "train, dev": (both("train", "dev"), VALIDATED),
    "seg_train, seg_test": (both("seg_train/seg_train", "seg_test/seg_test"), SPLITS),
    "signs_train, signs_test": (both("signs_train", "signs_test"), SPLITS),
    "train alone": ("train/cat*3 train/dog*2", {"train": CATS, "test": "one of train for"}),
    "test and val alone": (both("test", "val"), {"train": "one of test, val for", "test": CATS}),
    "another part": (both("train", "test") + " extra*4", {**SPLITS, "extra": (4, PLAIN)}),
    "two trains": (both("train1", "train2"), {"train": "one of train1, train2", "train1": CATS}),
    "a picture beside splits": (both("train", "test") + " .*1", SPLITS),
    # Wrappers.
    "in a folder": ("pets/cat*3 pets/dog*2", {"train": CATS}),
    "in a folder of the same name": (both("pets/pets/train", "pets/pets/test"), SPLITS),
    "in three folders": (both("a/b/c/Train", "a/b/c/Test"), SPLITS),
    "splits in a folder train": (both("train/train", "train/test"), SPLITS),
    "beside folders without images": (
        both("Data/train", "Data/test") + " Annotations/a.xml=x code/b.py=x",
        SPLITS,
    ),
    "holding itself again": ("pets/cat*3 pets/dog*2 cat*3 dog*2", {"train": CATS}),
    "splits holding themselves again": (
        both("train", "test") + " " + both("xray/train", "xray/test"),
        SPLITS,
    ),
    # Kaggle.
    "a flat test": ("train/cat*3 train/dog*2 test*4", {"train": CATS, "test": (4, PLAIN)}),
    "a flat test1": ("train/cat*3 train/dog*2 test1*4", {"train": CATS, "test": (4, PLAIN)}),
    "a test in a folder": (
        "train/cat*3 train/dog*2 test/unknown*4",
        {"train": CATS, "test": (4, "in one folder, `unknown`, which is no class")},
    ),
    "a test of one class": (
        "train/cat*3 train/dog*2 test/dog*4",
        {"train": CATS, "test": {"dog": 4}},
    ),
    "both flat": ("train/train*5 test1/test1*4", {"train": (5, "one folder"), "test": (4, "one")}),
    "a train of the good ones": (
        "train/good*3 test/good*2 test/broken*4",
        {"train": {"good": 3}, "test": {"broken": 4, "good": 2}},
    ),
    # Systems.
    "thumbnails and systems": (
        both("train", "test") + " @eaDir/cat*1 __MACOSX/train/cat*1 train/@eaDir*1 .thumbnails*3 "
        "train/cat/@eaDir*2 $RECYCLE.BIN*1 lost+found*1 train/.ipynb_checkpoints*1 Thumbs.db=x",
        SPLITS,
    ),
    "files of systems": ("cat*3 dog*2 cat/Thumbs.db=x cat/._x.jpg=x .DS_Store=x", {"train": CATS}),
    "an empty class": ("cat*3 dog*2 cow/notes.txt=x", {"train": CATS}),
    # A folder for each image.
    "an image a folder": (
        "7*1 8*1 9*1 10*1",
        {"train": (4, "a folder for each image, `10`, `7`, `8`, ...")},
    ),
    "an image a folder, in test": (
        "train/cat*3 train/dog*2 test/7*1 test/8*1 test/9*1",
        {"train": CATS, "test": (3, "a folder for each image")},
    ),
    "a class with one image": ("cat*3 dog*2 cow*1", {"train": {**CATS, "cow": 1}}),
    # Splits that would be classes.
    "a class beside val": ("cat*3 val*2", {"train": "holds `val`.*beside `cat`.*--dataset=folder"}),
    "images beside test": (
        ".*3 test*2",
        {"train": "holds `test`.*beside 3 images", "test": (2, "")},
    ),
    "splits inside of classes": (
        "cat/train*3 cat/test*2 dog/train*3 dog/test*2",
        {"train": r"splits test, train inside.*--split=all", "all": {"cat": 5, "dog": 5}},
    ),
    # Links.
    "a link to the folder above": ("cat*3 dog*2 cat/up->..", {"train": CATS}),
    "a link to itself": ("cat*3 dog*2 cat/me->me cat/me.png->me.png", {"train": CATS}),
    "a class that is a link": (
        "cat*3 elsewhere/.store*0 dog->cat",
        {"train": {"cat": 3, "dog": 3}},
    ),
    "images that are links": (
        "cat*3 dog*2 dog/a.png->../cat/000.png",
        {"train": {"cat": 3, "dog": 3}},
    ),
    # Nothing.
    "empty": ("", {"train": "holds no image; accepted"}),
    "archives": ("train.zip=x", {"train": "holds no image.*It holds .zip archives: unpack"}),
    "other files": ("a/b.tfrecord=x a/c.tfrecord=x", {"train": "It holds 2 .tfrecord"}),
}


def test_a_class_train_is_told(tmp_path):
    told = sources.load(f"folder:{make(tmp_path, 'bus*3 train*2')}").found
    assert told.classes == (("bus", 3), ("train", 2))
    assert told.notes == ("`train` is taken as a class: no test or val stands beside it",)


def test_variants_of_the_same_classes_are_told(tmp_path):
    make(tmp_path, "color/cat*3 color/dog*2 grey/cat*3 grey/dog*2")
    told = sources.load(f"folder:{tmp_path}").found
    assert told.classes == (("color", 5), ("grey", 5))
    assert f"if these are the classes, give --dataset=folder:{tmp_path}/color" in told.notes[0]
    (tmp_path / "grey" / "dog").rename(tmp_path / "grey" / "cow")
    assert sources.load(f"folder:{tmp_path}").found.notes == ()


ARCHIVES = {
    # As the archives of these names lie; the numbers of images are ours.
    "Stanford Dogs": (
        "images/Images/n1-husky*3 images/Images/n2-pug*2 annotations/Annotation/n1-husky/a=x",
        {"train": {"n1-husky": 3, "n2-pug": 2}},
    ),
    "CUB-200": (
        "CUB/images/001.Owl*3 CUB/images/002.Auk*2 CUB/parts/parts.txt=x CUB/classes.txt=x",
        {"train": {"001.Owl": 3, "002.Auk": 2}},
    ),
    "EuroSAT": ("2750/Forest*3 2750/River*2", {"train": {"Forest": 3, "River": 2}}),
    "GTSRB": ("Train/0*3 Train/1*2 Test*4 Meta*2", {"train": {"0": 3, "1": 2}, "test": (4, PLAIN)}),
    "Fruits-360": (
        "fruits-360/Training/a*3 fruits-360/Training/b*2 fruits-360/Test/a*1 fruits-360/Test/b*1 "
        "fruits-360/test-multiple_fruits*4",
        {"train": {"a": 3, "b": 2}, "test": {"a": 1, "b": 1}},
    ),
    "Tiny ImageNet": (
        "tiny/train/n01/images*3 tiny/train/n02/images*2 tiny/val/images*4 tiny/test/images*4",
        {"train": {"n01": 3, "n02": 2}, "val": (4, "in one folder"), "test": (4, "in one folder")},
    ),
    "ImageNet": (
        "ILSVRC/Data/CLS-LOC/train/n01*3 ILSVRC/Data/CLS-LOC/train/n02*2 "
        "ILSVRC/Data/CLS-LOC/val*3 ILSVRC/Annotations/CLS-LOC/val/a.xml=x ILSVRC/ImageSets/a.txt=x",
        {"train": {"n01": 3, "n02": 2}, "val": (3, PLAIN)},
    ),
    "Intel": (
        "seg_train/seg_train/sea*3 seg_train/seg_train/street*2 seg_test/seg_test/sea*1 "
        "seg_test/seg_test/street*1 seg_pred/seg_pred*3",
        {"train": {"sea": 3, "street": 2}, "test": {"sea": 1, "street": 1}, "seg_pred": (3, "")},
    ),
    "ASL alphabet": (
        "asl_alphabet_train/asl_alphabet_train/A*3 asl_alphabet_train/asl_alphabet_train/B*2 "
        "asl_alphabet_test/asl_alphabet_test*4",
        {"train": {"A": 3, "B": 2}, "test": (4, "in one folder")},
    ),
    "MVTec": (
        "bottle/train/good*3 bottle/test/good*1 bottle/test/broken*2 bottle/ground_truth/broken*2",
        {"train": {"good": 3}, "test": {"broken": 2, "good": 1}},
    ),
}
LAYOUTS |= ARCHIVES


def counts(source):
    return {name: count for name, count in source.found.classes}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    layout, expected = LAYOUTS[name]
    root = make(tmp_path / "root", layout) if layout else tmp_path
    for split, right in expected.items():
        if isinstance(right, str):
            with pytest.raises(ValueError, match=right) as refused:
                sources.load(f"folder:{root}", split=split)
            assert "\n" not in str(refused.value)
            continue
        source = sources.load(f"folder:{root}", split=split)
        if isinstance(right, dict):
            assert counts(source) == right and source.found.unlabelled == ""
            named = [source.class_names[label] for label in source.labels]
            folders = [name.split("/") for name in source.names]
            assert all(map(list.__contains__, folders, named))
            assert len(source) == sum(right.values()) == len(source.names)
        else:
            images, why = right
            assert len(source) == images and source.labels is None
            assert why in source.found.unlabelled
        assert source.found.images == len(source) and source.found.split == split
        assert found.lines(source.found)[1].strip().startswith(f"{len(source)} images")
        json.dumps(found.as_json(source.found))


def test_splits_share_their_class_numbers(tmp_path):
    make(tmp_path, "Training/ant*1 Training/bee*2 Training/cow*2 Testing/cow*3 Testing/ant*1")
    train, test = (sources.load(f"folder:{tmp_path}", split=s) for s in ("train", "test"))
    assert train.class_names == test.class_names == ("ant", "bee", "cow")
    assert test.labels.tolist() == [0, 2, 2, 2]
    assert test.names == ["ant/000.png", "cow/000.png", "cow/001.png", "cow/002.png"]
    assert sources.splits(f"folder:{tmp_path}") == ("Testing", "Training")


@pytest.mark.parametrize(
    "name, role",
    [
        ("train", "train"), ("Training_Set", "train"), ("train-images", "train"),
        ("test2", "test"), ("testing", "test"), ("valid", "val"), ("validation_data", "val"),
        ("test tube", None), ("training shoes", None), ("invalid", None), ("trainer", None),
        ("contest", None), ("train_test", None), ("", None), ("2021", None),
    ],
)  # fmt: skip
def test_roles(name, role):
    assert layouts.role(name) == role


# What is said.


def test_what_was_understood_is_told_in_a_few_lines(tmp_path):
    make(tmp_path, "pets/Train/cat*3 pets/Train/dog*2 pets/Test*4 pets/Train/a.svg=x "
         "pets/Train/cat/b.svg=x pets/Train/cat/c.cr2=x pets/Train/cat/up->..")  # fmt: skip
    fill(tmp_path / "pets" / "Train" / "dog", 2, (9, 5), ending="jpg")
    (tmp_path / "pets" / "Train" / "cat" / "x.png").write_text("text")
    os.mkfifo(tmp_path / "pets" / "Train" / "cat" / "pipe.png")
    told = sources.load(f"folder:{tmp_path}").found
    assert found.lines(told) == [
        f"data: {tmp_path}/pets/Train, split train of Test, Train",
        "  7 images of 2 classes: cat: 3, dog: 4",
        "  height x width 4 x 6 to 5 x 9, median 4 x 6; RGB: 7",
        "  not images, ignored: .svg: 2, .cr2: 1",
        "  skipped: 2: cat/pipe.png (not a regular file); cat/up (a link to a folder above it)",
        "  damaged, left out: 1: cat/x.png (it is no image of a known kind)",
        "  the folder `pets` inside is taken, it is the only one",
        "  `Train` is taken as train",
    ]
    kept = found.as_json(told)
    assert kept["damaged"]["count"] == 1 and "cat/x.png" in kept["damaged"]["files"]
    assert kept["sizes"] == [[4, 6], [4, 6], [5, 9]]


def test_long_lists_are_cut_on_the_screen_and_bounded_in_a_file():
    many = found.Found("x", classes=tuple((f"c{i}", i) for i in range(5000)), images=9)
    line = found.lines(many)[1]
    assert line.endswith("c3: 3, c4: 4 and 4,995 more") and len(line) < 100
    kept = found.as_json(many)
    assert len(kept["classes"]) == 1000 and kept["number_of_classes"] == 5000


# Tables of labels. `_` is a blank and `;;` ends a line in `make`.

CSV = "a.csv=id,breed;;000,cat;;001,dog;;002,cat"
TABLES = {
    "csv": (f"x*3 {CSV}", "", {"train": {"cat": 2, "dog": 1}}),
    "with endings": ("x*2 a.csv=file,label;;000.png,b;;001.png,a", "", {"train": {"a": 1, "b": 1}}),
    "with folders": (
        "x/y*2 x/z*2 a.csv=path,class;;y/000.png,b;;x/z/000.png,a;;./y/001.png,a;;z\\001,b",
        "",
        {"train": {"a": 2, "b": 2}},
    ),
    "semicolons": ("x*2 a.csv=file;label;;000.png;b;;001.png;c", "", {"train": {"b": 1, "c": 1}}),
    "without a header": ("x*2 a.csv=000.png,b;;001.png,c", "", {"train": {"b": 1, "c": 1}}),
    "json list": (
        'x*2 a.json=[{"image":"000","class":3},{"image":"001","class":12}]',
        "",
        {"train": {"3": 1, "12": 1}},
    ),
    "json object": ('x*2 a.json={"000.png":"b","001.png":"c"}', "", {"train": {"b": 1, "c": 1}}),
    "columns given": (
        "x*2 a.csv=photo,kind,n;;000,b,1;;001,c,2",
        "photo,kind",
        {"train": {"b": 1, "c": 1}},
    ),
    "split column": (
        "x*4 a.csv=file,label,split;;000,b,Train;;001,c,Train;;002,b,Test;;003,b,Test",
        "",
        {"train": {"b": 1, "c": 1}, "test": {"b": 2}, "val": "one of Test, Train for"},
    ),
    "several labels": (
        "x*3 a.csv=file,Finding_labels;;000,b|c;;001,c;;002,d",
        "",
        {"train": {"b": 1, "c": 2, "d": 1}},
    ),
    "rows without images": (
        f"x*2 {CSV}",
        "",
        {"train": {"cat": 1, "dog": 1}},
        "1 of 3 rows name no image here (`002`)",
    ),
    "images without rows": (
        f"x*5 {CSV}",
        "",
        {"train": {"cat": 2, "dog": 1}},
        "2 images without a label there are left out",
    ),
    "kaggle": (
        "train*3 test*3 a.csv=id,breed;;train/000,cat;;train/001,dog;;train/002,dog",
        "",
        {"train": {"cat": 1, "dog": 2}},
    ),
    "of other images": ("x*2 a.csv=id,breed;;7,cat", "", {"train": "none of the 2 images.*`7`"}),
    "no column": ("x*2 a.csv=a,b,c;;1,2,3", "", {"train": "_columns=FILE,LABEL.*: a, b, c"}),
    "wrong columns": (f"x*2 {CSV}", "id,kind", {"train": "two or three of id, breed.*id,kind"}),
    "no rows": ("x*2 a.csv=id,breed", "", {"train": "a.csv has no rows"}),
    "no json": ("x*2 a.json=[1,", "", {"train": "a.json cannot be read"}),
    "no table": ("x*2", "", {"train": "There is no file"}),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name):
    layout, columns, expected, *note = TABLES[name]
    make(tmp_path, layout)
    files = [p for p in tmp_path.iterdir() if p.is_file()]
    table = str(files[0] if files else tmp_path / "a.csv")
    for split, right in expected.items():
        arguments = {"split": split, "labels": table, "columns": columns}
        if isinstance(right, str):
            with pytest.raises((ValueError, FileNotFoundError), match=right):
                sources.load(f"folder:{tmp_path}", **arguments)
            continue
        source = sources.load(f"folder:{tmp_path}", **arguments)
        assert counts(source) == right
        told = "; ".join(source.found.notes)
        assert "is the label" in told and all(text in told for text in note)


def test_a_table_labels_the_image_that_it_names(tmp_path):
    make(tmp_path, "x*3")
    (tmp_path / "a.tsv").write_text("name\tset\tkind\n002\ttrain\tc\n000\ttrain\ta\n")
    source = sources.load(f"folder:{tmp_path}", labels=f"{tmp_path}/a.tsv", columns="name,kind")
    assert source.names == ["x/000.png", "x/002.png"] and source.labels.tolist() == [0, 1]
    assert [int(source.read(i)[0, 0, 0]) for i in range(2)] == [0, 2]  # `fill` paints the number
    assert source.class_names == ("a", "c")


def test_several_labels_are_a_matrix(tmp_path):
    make(tmp_path, "x*2 a.csv=file,label;;000,b|c;;001,c")
    source = sources.load(f"folder:{tmp_path}", labels=f"{tmp_path}/a.csv")
    assert source.labels.dtype == np.int64 and source.labels.tolist() == [[1, 1], [0, 1]]


def test_a_test_folder_that_the_table_does_not_name_is_unlabelled(tmp_path):
    make(tmp_path, "train/x*2 test/y*2")
    for folder in ("x", "y"):
        for file in (tmp_path / ("train" if folder == "x" else "test") / folder).iterdir():
            file.rename(file.with_name(folder + file.name))
    (tmp_path / "a.csv").write_text("id,breed\nx000,cat\nx001,dog\n")
    test = sources.load(f"folder:{tmp_path}", split="test", labels=f"{tmp_path}/a.csv")
    assert len(test) == 2 and test.labels is None
    assert re.search("a.csv names none of these 2 images", test.found.unlabelled)


CONTENTS = (
    b"id,breed,split\n000,cat,train\n001,dog,train\n",
    b'[{"image": "000.png", "label": 1}, {"image": "001.png", "label": [2, 3]}]',
    "id\tkind\n000\tch\u00e4t\n001\tdog|cat\n".encode(),
)


@pytest.mark.parametrize("content", CONTENTS, ids=["csv", "json", "tsv"])
def test_a_damaged_table_is_read_or_refused_in_one_sentence(tmp_path, content):
    make(tmp_path, "x*2")
    table, read = tmp_path / ("a.json" if content[:1] == b"[" else "a.csv"), 0
    for at in range(len(content)):
        before, after = content[:at], content[at:]
        for damaged in (
            before,
            before + after[1:],
            before + b"\xff" + after,
            before + b"\0" + after,
        ):
            table.write_bytes(damaged)
            load = functools.partial(sources.load, f"folder:{tmp_path}", labels=str(table))
            source = fuzz.outcome(load, str(table), "`dataset`", "`split`", "--labels")
            read += source is not None and source.labels is not None
    assert 0 < read < 4 * len(content)


@pytest.mark.parametrize("path", ["\0", "x" * 5000, "~nobody_of_this_name/x", "."])
def test_what_is_no_table(tmp_path, path):
    make(tmp_path, "x*2")
    with pytest.raises(FileNotFoundError, match="give --labels an existing table"):
        sources.load(f"folder:{tmp_path}", labels=path)


def test_a_table_goes_with_a_folder():
    with pytest.raises(ValueError, match="--labels goes with --dataset=folder:PATH"):
        sources.load("digits", labels="a.csv")
    with pytest.raises(ValueError, match="--labels_columns goes with --labels"):
        sources.load("digits", columns="a,b")
