"""scripts/translate.py on pictures as people have them: any size, grey, transparent, turned, with masks and targets."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gormley_vision.command_line import load_config_file
from gormley_vision.errors import UserError
from gormley_vision.metrics.image_quality import psnr
from gormley_vision.run import run

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS).resize((50, 41), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs `sr` and `inpaint` of a few steps; `pairs`, of label maps; and a folder of pictures."""
    root = tmp_path_factory.mktemp("translate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        for number in range(4):
            for kind, pixels in (
                ("scenes", PICTURE),
                ("maps", Image.fromarray(PIXELS[..., 0] % 3).resize((50, 41), 0)),
            ):
                (root / kind).mkdir(exist_ok=True)
                pixels.save(root / kind / f"{number}.png")
        (root / "maps" / "classes.txt").write_text("road\nsky\ncar\n")
        pairs = {"data.source": "folder", "data.path": str(root / "scenes"), "data.targets": str(root / "maps")}
        pairs |= {
            "translation.degradation": "none",
            "translation.reverse": True,
            "eval.split": "train",
            "data.batch_size": 4,
        }
        for name, file, changes in (
            ("sr", "sr_edsr_x2", {}),
            ("inpaint", "inpaint_photos", {}),
            ("pairs", "pix2pix_camvid", pairs),
        ):
            config = load_config_file(f"{ROOT}/configs/{file}.py:smoke")
            config.update_from_flattened_dict({"mesh.data": 1, "duration": "2 steps", "data.crop": "none", **changes})
            if not changes:
                config.data.crop = "center"
            assert run(config.to_dict(), root / name) == 0
        turned = PICTURE.getexif()
        turned[274] = 6
        (root / "in" / "deep").mkdir(parents=True)
        PICTURE.save(root / "in" / "turned.jpg", exif=turned)
        PICTURE.convert("L").save(root / "in" / "grey.png")
        PICTURE.save(root / "in" / "deep" / "colour.png")
        clear = PICTURE.convert("RGBA")
        clear.paste((0, 0, 0, 0), (10, 10, 30, 30))
        clear.save(root / "clear.png")
        Image.new("L", PICTURE.size, 255).save(root / "m.png")
        PICTURE.resize((9, 9)).save(root / "tiny.png")
        yield root


def program(capsys, *words):
    script = runpy.run_path(str(ROOT / "scripts" / "translate.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["scripts/translate.py", *map(str, words)])
        script["main"]()
    return capsys.readouterr().out


def size(path):
    with Image.open(path) as picture:
        return picture.size, picture.mode


def test_a_folder_is_enlarged_whatever_is_in_it(folders, tmp_path, capsys):
    out = tmp_path / "out"
    program(capsys, f"--workdir={folders / 'sr'}", f"--in={folders / 'in'}", f"--out={out}")
    found = {str(path.relative_to(out)): size(path) for path in sorted(out.rglob("*.png"))}
    assert found == {
        "deep/colour.png": ((100, 82), "RGB"),
        "grey.png": ((100, 82), "RGB"),
        "turned.png": ((82, 100), "RGB"),
    }


def test_a_picture_that_cannot_be_read_is_told_and_the_others_go_on(folders, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes((folders / "in" / "grey.png").read_bytes()[:200])
    PICTURE.save(tmp_path / "in" / "b.png")
    words = f"--workdir={folders / 'sr'}", f"--in={tmp_path / 'in'}", f"--out={tmp_path / 'out'}"
    with pytest.raises(UserError, match=r"1 of 2 pictures could not be read: a\.png"):
        program(capsys, *words)
    assert "a.png" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]


def test_scores_are_those_of_the_files(folders, tmp_path, capsys):
    words = (
        f"--in={folders / 'in' / 'deep'}",
        "--degrade",
        f"--out={tmp_path / 'out'}",
        f"--json={tmp_path / 's.json'}",
    )
    printed = program(capsys, f"--workdir={folders / 'inpaint'}", *words)
    (row,) = json.loads((tmp_path / "s.json").read_text())["pictures"]
    made = np.asarray(Image.open(tmp_path / "out" / "colour.png"))
    assert row["psnr"] == pytest.approx(psnr(made, np.asarray(PICTURE)))
    assert row["psnr_hole"] < row["psnr"]
    assert "given_psnr_hole" in printed
    program(capsys, f"--workdir={folders / 'sr'}", *words)
    (row,) = json.loads((tmp_path / "s.json").read_text())["pictures"]
    assert size(tmp_path / "out" / "colour.png")[0] == (50, 40)  # cut to a multiple of 2
    assert row["psnr"] == pytest.approx(row["given_psnr"], abs=0.5)  # after two steps from bicubic interpolation


def test_holes_are_masks_or_what_is_transparent_or_beyond_the_picture(folders, tmp_path, capsys):
    out, run_ = tmp_path / "out.png", f"--workdir={folders / 'inpaint'}"
    program(capsys, run_, f"--in={folders / 'clear.png'}", f"--out={out}")
    made, hole = np.asarray(Image.open(out)), np.zeros((41, 50), bool)
    hole[10:30, 10:30] = True
    assert np.array_equal(made[~hole], np.asarray(PICTURE)[~hole])
    assert not np.array_equal(made[hole], np.asarray(PICTURE)[hole])
    Image.fromarray(hole.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    picture = folders / "in" / "deep" / "colour.png"
    program(capsys, run_, f"--in={picture}", f"--mask={tmp_path / 'mask.png'}", f"--out={tmp_path / 'masked.png'}")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "masked.png"))[~hole], made[~hole])
    program(capsys, run_, f"--in={picture}", "--extend=0,8,4,0", f"--out={out}")
    assert size(out)[0] == (58, 45)
    assert np.array_equal(np.asarray(Image.open(out))[:41, :50], np.asarray(PICTURE))


def test_masks_are_white_strokes_and_what_is_transparent_is_filled_anyway(folders, tmp_path, capsys):
    run_, clear = f"--workdir={folders / 'inpaint'}", np.zeros((41, 50), bool)
    clear[10:30, 10:30] = True  # as clear.png is
    strokes = np.zeros((41, 50, 4), np.uint8)
    strokes[..., :3], strokes[5:20, 40:45, 3] = 255, 255  # white everywhere, on an empty layer
    Image.fromarray(strokes).save(tmp_path / "layer.png")
    deep = np.full((41, 50), 20_000, np.uint16)  # in 16 bits: darker than half
    deep[5:20, 40:45] = 40_000
    Image.fromarray(deep).save(tmp_path / "deep.png")
    marked = strokes[..., 3] > 0
    for name in ("layer.png", "deep.png"):
        words = (f"--in={folders / 'clear.png'}", f"--mask={tmp_path / name}", f"--out={tmp_path / 'out.png'}")
        program(capsys, run_, *words)
        changed = (np.asarray(Image.open(tmp_path / "out.png")) != np.asarray(PICTURE)).any(-1)
        assert not (changed & ~(marked | clear)).any()
        assert changed[marked].mean() > 0.9
        assert changed[clear].mean() > 0.9
    program(capsys, run_, f"--in={folders / 'clear.png'}", "--extend=2,0,0,0", f"--out={tmp_path / 'out.png'}")
    changed = (np.asarray(Image.open(tmp_path / "out.png"))[2:] != np.asarray(PICTURE)).any(-1)
    assert np.array_equal(changed | clear, clear)
    assert changed[clear].mean() > 0.9


def test_what_is_lost_of_a_picture_is_said(folders, tmp_path, capsys):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for file, said in ((folders / "clear.png", "transparent becomes white"), (tmp_path / "moving.gif", "first of 2")):
        script = runpy.run_path(str(ROOT / "scripts" / "translate.py"))
        script["read"](SimpleNamespace(classes=0, fills=False, input_channels=3), file)
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--in=", "--out=", "--workdir="])
def test_an_empty_flag_is_not_the_current_folder(flag, capsys):
    with pytest.raises(SystemExit):
        program(capsys, "--workdir=x", "--in=x", "--out=x", flag)
    assert f"argument {flag[:-1]}: is empty" in capsys.readouterr().err


def test_label_maps_become_pictures_and_are_compared(folders, tmp_path, capsys):
    words = (f"--workdir={folders / 'pairs'}", f"--in={folders / 'maps'}", f"--out={tmp_path}")
    printed = program(capsys, *words, f"--targets={folders / 'scenes'}")
    assert size(tmp_path / "0.png")[0] == (50, 41)
    assert printed.count("psnr") == 5
    assert "given" not in printed


def test_partners_are_pictures_of_the_whole_name(folders, tmp_path, capsys):
    for name in ("a", "a.old", "b[1]"):
        for folder in ("in", "mask"):
            (tmp_path / folder).mkdir(exist_ok=True)
            PICTURE.save(tmp_path / folder / f"{name}.png")
    (tmp_path / "mask" / "a.json").write_text("{}")
    hole = Image.new("RGB", PICTURE.size)
    hole.paste((255, 0, 0), (0, 0, 50, 20))  # not white, but no black either
    hole.save(tmp_path / "mask" / "a.png")
    Image.new("L", PICTURE.size).save(tmp_path / "mask" / "b[1].png")
    words = (f"--workdir={folders / 'inpaint'}", f"--in={tmp_path / 'in'}", f"--mask={tmp_path / 'mask'}")
    words += (f"--targets={tmp_path / 'in'}", f"--out={tmp_path / 'out'}", f"--json={tmp_path / 's.json'}")
    script = runpy.run_path(str(ROOT / "scripts" / "translate.py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["scripts/translate.py", *map(str, words)])
        script["main"]()
    assert "b[1].png: nothing is to be filled" in capsys.readouterr().err
    scores = json.loads((tmp_path / "s.json").read_text())
    rows = {row["file"]: row for row in scores["pictures"]}
    assert rows["b[1].png"]["psnr"] == 100
    assert "psnr_hole" not in rows["b[1].png"]
    made = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert np.array_equal(made[20:], np.asarray(PICTURE)[20:])
    assert not np.array_equal(made[:20], np.asarray(PICTURE)[:20])
    assert scores["mean"]["psnr_hole"] == pytest.approx(
        (rows["a.png"]["psnr_hole"] + rows["a.old.png"]["psnr_hole"]) / 2
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--workdir={0}/sr --in={0}/nothing --out=x", "no picture or folder"),
        ("--workdir={0}/sr --in={0}/in --out=x.png", "its pictures go to one: --out=x"),
        ("--workdir={0}/sr --in={0}/in --out={1} --extend=1,1,1,1", "does not fill holes"),
        ("--workdir={0}/sr --in={0}/in --out={0}/in", "would lie among the pictures"),
        ("--workdir={0}/sr --in={0}/in --out=x.jpg", "--out=x.png"),
        ("--workdir={0}/sr --in={0}/in --out={1} --own_size", "leave it out"),
        ("--workdir={0}/sr --in={0}/scenes --out={1} --targets={0}/scenes", "make it as large"),
        ("--workdir={0}/inpaint --in={0}/in --out={1} --extend=0,99999,0,0", "up to 8192"),
        ("--workdir={0}/inpaint --in={0}/in --out={1}", "pass --mask=FILE, --extend=..., or --degrade"),
        ("--workdir={0}/inpaint --in={0}/in --out={1} --extend=1,2", "--extend=0,64,0,64"),
        ("--workdir={0}/pairs --in={0}/maps --out={1} --degrade", "learned from pairs"),
        ("--workdir={0}/pairs --in={0}/in --out={1}", "classes.txt names 0 to 2"),
        ("--workdir={0}/sr --in={0}/in --out={1} --json={1}/s.json", "--json has nothing to say"),
        ("--workdir={0}/sr --in={0}/in --out={1} --targets={0}/maps", "has no targets in"),
        ("--workdir={0}/pairs --in={0}/maps --out={0}/scenes --targets={0}/scenes", "would lie among"),
        ("--workdir={0}/inpaint --in={0}/clear.png --mask={0}/m.png --out={0}/m.png", "would lie among"),
        ("--workdir={0}/pairs --in={0}/maps --out={1} --targets={0}/clear.png", "pass the folder of their targets"),
        ("--workdir={0}/pairs --in={0}/maps --out={1} --tile=20", "multiples of 32 from 96 on: --tile=96"),
        ("--workdir={0}/inpaint --in={0}/clear.png --out={1}/x.png --tile=1", "--tile=96"),
        ("--workdir={0}/sr --in={0}/tiny.png --out={1} --degrade", "no picture is large enough to compare"),
        ("--workdir={0}/sr --in={0}/clear.png --out={1}.xyz", "a folder's name without a suffix"),
    ],
)
def test_mistakes_are_said(folders, tmp_path, capsys, words, message):
    with pytest.raises(UserError) as error:
        program(capsys, *words.format(folders, tmp_path / "out").split())
    assert message in str(error.value)
