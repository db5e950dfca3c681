"""DICOM and other formats of films: the same pixels, refusals in a sentence, bounded memory, no patient."""
import io, itertools, json, os, struct, subprocess, sys, zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian,
    JPEG2000Lossless, JPEGBaseline8Bit, RLELossless)

from pneumo_nb import films
from pneumo_nb.cache import decode_films
from pneumo_nb.films import (
    FILM_ENDINGS, MOST_PIXELS, check_dataset, decode_film, dicom_remarks, dicom_tags, film_format, read_film,
    scan_dataset, write_template)
from pneumo_nb.phantom import make_dataset
from pneumo_nb.run import StudyError

PATIENT = dict(PatientName="Doe^Jane", PatientID="4711-4712", PatientBirthDate="20190203",
               StudyDate="20240506", AccessionNumber="ACC-0815", InstitutionName="St. Elsewhere")

@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data")/"set", n_train=8, n_test=4, n_val=0, seed=3)

@pytest.fixture(scope="module")
def film(phantoms):
    "A small phantom that has black and white."
    pixels = cv2.resize(read_film(min(phantoms.rglob("train/PNEUMONIA/*.jpeg"))), (60, 50)).astype(float)
    return np.rint(255 * (pixels - pixels.min()) / np.ptp(pixels)).astype(np.uint8)

# ---- writing DICOM

def dataset(values: np.ndarray, bits: int, syntax=ExplicitVRLittleEndian, **tags) -> Dataset:
    "Stored values and what must be said of them; `tags` are added, or take the place of others."
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    bytes_a_value = values.itemsize
    pixels = dict(SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", Rows=values.shape[0],
                  Columns=values.shape[1], BitsAllocated=8 * bytes_a_value, BitsStored=bits, HighBit=bits - 1,
                  PixelRepresentation=int(values.dtype.kind == "i"))
    about = dict(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", SOPInstanceUID="1.2.3", Modality="DX",
                 BodyPartExamined="CHEST", ViewPosition="AP", BurnedInAnnotation="NO")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    content = values.astype(values.dtype.newbyteorder(order)).tobytes()
    content += b"\0" * (len(content) % 2)
    for name, value in (about | PATIENT | pixels | dict(PixelData=content) | tags).items():
        setattr(ds, name, value)
    ds["PixelData"].VR = "OW" if bytes_a_value == 2 else "OB"
    return ds

def written(ds: Dataset) -> bytes:
    "The file of a dataset."
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()

def stored(film: np.ndarray, bits: int, signed: bool, negative: bool, allocated: int = 0) -> np.ndarray:
    "What a detector of some bits might have stored of a film."
    top = 2 ** bits - 1
    levels = np.rint(film.astype(float) * top / 255)
    levels = (top - levels if negative else levels) - (2 ** (bits - 1) if signed else 0)
    return levels.astype(f"{'i' if signed else 'u'}{(allocated or (8 if bits == 8 else 16)) // 8}")

def ends_of(bits: int, signed: bool, slope: float, intercept: float) -> tuple[float, float]:
    "The least and the greatest value after rescaling."
    low = -2 ** (bits - 1) if signed else 0
    return tuple(sorted(slope * value + intercept for value in (low, low + 2 ** bits - 1)))

def voi_tags(way: str, low: float, high: float) -> dict:
    "Tags that show a range of values from black to white in one of several ways."
    if way == "none": return {}
    if way == "window": return dict(WindowCenter=(low + high + 1) / 2, WindowWidth=high - low + 1)
    if way == "windows": return dict(WindowCenter=[(low + high + 1) / 2, 7], WindowWidth=[high - low + 1, 9])
    if way == "exact": return dict(WindowCenter=(low + high) / 2, WindowWidth=high - low,
                                   VOILUTFunction="LINEAR_EXACT")
    item, count = Dataset(), int(high - low) + 1
    item.LUTDescriptor = [count % 2 ** 16, int(low), 12]
    item.LUTData = np.rint(np.linspace(0, 4095, count)).astype("<u2").tobytes()
    item["LUTData"].VR, item["LUTDescriptor"].VR = "OW", "SS" if low < 0 else "US"
    return dict(VOILUTSequence=[item])

RESCALES = {"none": None, "steps": (2.0, -100.0), "falling": (-1.0, 50.0), "shift": (1.0, 100.0)}
WAYS = ["none", "window", "windows", "exact", "table"]

def as_dicom(film, bits=12, signed=False, kind="MONOCHROME2", rescale="none", way="window", **more):
    "A film stored so that a viewer shows it as it is."
    slope, intercept = RESCALES[rescale] or (1, 0)
    values = stored(film, bits, signed, (kind == "MONOCHROME1") != (slope < 0))
    tags = voi_tags(way, *ends_of(bits, signed, slope, intercept))
    if RESCALES[rescale]: tags |= dict(RescaleSlope=slope, RescaleIntercept=intercept)
    return dataset(values, bits, **tags | dict(PhotometricInterpretation=kind) | more)

def fits(way, rescale, bits, signed) -> bool:
    "Whether a table can be written: whole values of 16 bits, signed where the pixels are."
    if way != "table": return True
    low, high = ends_of(bits, signed, *(RESCALES[rescale] or (1, 0)))
    least, most = (-2 ** 15, 2 ** 15) if signed else (0, 2 ** 16)
    return rescale != "steps" and least <= low < most and high < 2 ** 16

# ---- the same pixels

@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_film_in_every_kind_of_dicom_is_the_same_within_one_gray_value(film, bits):
    tried = 0
    for kind in itertools.product((False, True), ("MONOCHROME1", "MONOCHROME2"), RESCALES, WAYS):
        signed, photometric, rescale, way = kind
        if not fits(way, rescale, bits, signed): continue
        read = decode_film(written(as_dicom(film, bits, signed, photometric, rescale, way)), "film.dcm")
        assert np.abs(read.astype(int) - film).max() <= 1, kind
        tried += 1
    assert tried >= 66

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]

@pytest.mark.parametrize("syntax", NATIVE, ids=lambda uid: uid.name)
def test_uncompressed_transfer_syntaxes(film, syntax):
    for bits, signed, kind in itertools.product((8, 12), (False, True), ("MONOCHROME1", "MONOCHROME2")):
        content = written(as_dicom(film, bits, signed, kind, syntax=syntax))
        assert np.abs(decode_film(content, "film.dcm").astype(int) - film).max() <= 1, (bits, signed, kind)

def compressed(ds: Dataset, name: str, tmp_path: Path) -> bytes:
    "A file's pixels in a compressed transfer syntax, by GDCM."
    gdcm = pytest.importorskip("gdcm")
    files = [str(tmp_path/f"{n}.dcm") for n in "ab"]
    Path(files[0]).write_bytes(written(ds))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(files[0])
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(files[1])
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return Path(files[1]).read_bytes()

COMPRESSED = ["RLELossless", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"]

@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_transfer_syntaxes(film, name, tmp_path):
    kinds = itertools.product((8, 12, 16), (False, True), ("MONOCHROME1", "MONOCHROME2"))
    for bits, signed, kind in kinds:
        content = compressed(as_dicom(film, bits, signed, kind), name, tmp_path)
        assert pydicom.dcmread(io.BytesIO(content)).file_meta.TransferSyntaxUID.is_compressed
        assert np.abs(decode_film(content, "film.dcm").astype(int) - film).max() <= 1, (bits, signed, kind)

def in_fragments(film, content: bytes, syntax, **tags) -> bytes:
    "A file of 8 bits that holds a compressed picture."
    ds = dataset(film, 8, syntax, PixelData=encapsulate([content]), **tags)
    ds["PixelData"].is_undefined_length = True
    return written(ds)

def test_a_baseline_jpeg_in_dicom_is_the_jpeg(film):
    jpeg = cv2.imencode(".jpeg", film, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    read = decode_film(in_fragments(film, jpeg, JPEGBaseline8Bit), "film.dcm")
    assert np.abs(read.astype(int) - decode_film(jpeg, "film.jpeg")).max() <= 1

def test_colour_becomes_gray_as_it_does_in_other_formats(film):
    colour = np.dstack([film, film // 2, 255 - film])
    png = cv2.imencode(".png", colour[..., ::-1])[1].tobytes()
    for planar in (0, 1):
        pixels = (colour.transpose(2, 0, 1) if planar else colour).tobytes()
        ds = dataset(film, 8, PixelData=pixels, SamplesPerPixel=3, PhotometricInterpretation="RGB",
                     PlanarConfiguration=planar)
        read = decode_film(written(ds), "a.dcm").astype(int)
        assert np.abs(read - decode_film(png, "a.png")).max() <= 1

def test_values_that_pad_do_not_darken_a_film_without_window(film):
    values = stored(film, 12, False, False) // 4 + 1000
    values[:5], clear = 0, slice(5, None)
    read = decode_film(written(dataset(values, 12, PixelPaddingValue=0)), "a.dcm")
    bare = decode_film(written(dataset(values[clear], 12)), "a.dcm")
    np.testing.assert_array_equal(read[clear], bare)
    assert bare.min() == 0 and bare.max() == 255 and not read[:5].any()

def test_bits_beyond_those_stored_do_not_count(film):
    values = stored(film, 12, False, False)
    overlay = values | np.uint16(0xF000)
    window = voi_tags("window", 0, 4095)
    np.testing.assert_array_equal(decode_film(written(dataset(overlay, 12, **window)), "a.dcm"),
                                  decode_film(written(dataset(values, 12, **window)), "a.dcm"))

def test_other_formats_give_the_same_pixels(film, tmp_path):
    deep = film.astype(np.uint16)
    saved = {"8.tif": film, "12.tiff": deep * 16, "16.tif": deep * 257, "rgb.tif": np.dstack([film] * 3),
             "12.png": deep * 16, "8.png": film}
    for name, values in saved.items():
        cv2.imwrite(str(tmp_path/name), values)
        np.testing.assert_array_equal(read_film(tmp_path/name), film, name)
    Image.fromarray(deep * 16).save(tmp_path/"white.tif", tiffinfo={262: 0})
    np.testing.assert_array_equal(read_film(tmp_path/"white.tif"), 255 - film)
    Image.fromarray(film).save(tmp_path/"a.webp", lossless=True)
    assert np.abs(read_film(tmp_path/"a.webp").astype(int) - film).max() <= 1

def test_a_jpeg_is_read_as_opencv_reads_it(phantoms):
    for file in sorted(phantoms.rglob("*.jpeg")):
        pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(read_film(file), pixels)

# ---- real files

def refusal(content: bytes, name: str = "film.dcm") -> str:
    "Why a file is refused, in one sentence that names it and nothing else of it."
    with pytest.raises(StudyError) as e: decode_film(content, name)
    said = str(e.value)
    assert said.startswith(f"Expected a readable film at {name}, found ") and "\n" not in said
    assert len(said) < 160 and not any(value in said for value in PATIENT.values())
    return said

def test_every_file_that_pydicom_ships_is_read_or_refused_in_one_sentence(capfd, recwarn):
    root, read, refused = Path(pydicom.__file__).parent/"data", [], []
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        content = file.read_bytes()
        try: pixels = decode_film(content, file.name)
        except StudyError: refused.append((file.name, refusal(content, file.name)))
        else: read.append((file.name, pixels.shape, pixels.dtype))
        if film_format(content) == "DICOM": dicom_remarks(content), dicom_tags(content)
    assert len(read) >= 80 and all(len(shape) == 2 and dtype == np.uint8 for _, shape, dtype in read)
    assert not recwarn.list and capfd.readouterr() == ("", "")
    found = dict(refused)
    assert "several frames" in found["examples_ybr_color.dcm"] and "no pixels" in found["rtplan.dcm"]
    assert "neither gray nor RGB" in found["examples_palette.dcm"]

# ---- what must be refused, with bounded memory

def of_values(tags: dict, film) -> bytes:
    return written(as_dicom(film, **tags))

REFUSED = {  # tags of a good film that are changed; what is said
    "frames": (dict(NumberOfFrames=2), "several frames"),
    "size": (dict(Rows=60_000, Columns=60_000), "60,000 × 60,000 pixels"),
    "palette": (dict(PhotometricInterpretation="PALETTE COLOR"), "neither gray nor RGB"),
    "32 bits": (dict(BitsAllocated=32, BitsStored=32, HighBit=31), "32 bits stored"),
    "4 bits": (dict(BitsStored=4, HighBit=3), "4 bits stored"), "shifted": (dict(HighBit=15), "shifted"),
    "no rows": (dict(Rows=0), "cannot decode"), "no width": (dict(WindowWidth=0), "cannot decode"),
    "more rows": (dict(Rows=51), "cannot decode"), "no kind": (dict(VOILUTFunction="CUBE"), "cannot decode"),
    "slope": (dict(RescaleSlope="1e400", RescaleIntercept="0"), "cannot decode")}

@pytest.mark.parametrize("tags, says", REFUSED.values(), ids=REFUSED)
def test_what_is_no_single_gray_film_is_refused(film, tags, says):
    assert says in refusal(of_values(tags, film))

def test_a_file_without_pixels_is_refused(film):
    ds = as_dicom(film)
    del ds.PixelData
    assert "no pixels in it" in refusal(written(ds))

def deflated_bomb(film) -> bytes:
    "A deflated file of a megabyte that unpacks to a gigabyte."
    content = written(as_dicom(film, syntax=DeflatedExplicitVRLittleEndian))
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = packer.compress(bytes(2 ** 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    small = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    meta = 132 + 12 + small.file_meta.FileMetaInformationGroupLength
    return content[:meta] + block * 64

def rle_bomb() -> bytes:
    "A run-length segment of 4 MB that unpacks to 256 MB, for a film of 64 by 64."
    rle = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 2 ** 21
    return in_fragments(np.zeros((64, 64), np.uint8), rle, RLELossless)

def lying_picture(syntax) -> bytes:
    "A picture of 64 by 64 by its DICOM tags, of 60,000 by 60,000 by its own header."
    pixels, out = Image.fromarray(np.zeros((64, 64), np.uint8)), io.BytesIO()
    pixels.save(out, "JPEG2000" if syntax == JPEG2000Lossless else "JPEG", **(
        dict(no_jp2=True) if syntax == JPEG2000Lossless else {}))
    content = bytearray(out.getvalue())
    if syntax == JPEG2000Lossless:
        place = content.index(b"\xff\x51") + 6
        content[place:place + 8] = struct.pack(">2I", 60_000, 60_000)
        content[place + 16:place + 24] = struct.pack(">2I", 60_000, 60_000)   # as one tile
    else:
        place = content.index(b"\xff\xc0") + 5
        content[place:place + 4] = struct.pack(">2H", 60_000, 60_000)
    return in_fragments(np.zeros((64, 64), np.uint8), bytes(content), syntax)

def png_bomb() -> bytes:
    "A PNG of 60,000 by 60,000 in good order."
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(
        ">I", zlib.crc32(kind + data))
    header = struct.pack(">2I5B", 60_000, 60_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10 ** 7)))

def tiff_of(**tags: int) -> bytes:
    "A TIFF of a few tags, by number."
    rows = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64, 279: 4096} | {
        int(name[1:]): value for name, value in tags.items()}
    table = b"".join(struct.pack("<2H2I", tag, 4, 1, value) for tag, value in sorted(rows.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(rows)) + table + struct.pack("<I", 0)

def jpeg_bomb() -> bytes:
    "A JPEG of 65,500 by 65,500, behind a comment and bytes that mean nothing."
    content = bytearray(cv2.imencode(".jpeg", np.zeros((64, 64), np.uint8))[1].tobytes())
    place = content.index(b"\xff\xc0") + 5
    content[place:place + 4] = struct.pack(">2H", 65_500, 65_500)
    return bytes(content[:2]) + b"\xff\xfe\x00\x06\xff\xc0\x00\x00" + b"\x17\x17" + bytes(content[2:])

def webp_bomb() -> bytes:
    "A WebP of 16,384 by 16,384."
    return b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + b"\0" * 4 + b"\xff\x3f\0" * 2

def nested(film, depth=3000) -> bytes:
    "A sequence in a sequence in a sequence."
    begin, end = b"\x40\x00\x50\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff", \
                 b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    content = written(as_dicom(film))
    place = content.index(b"\xe0\x7f\x10\x00OW")
    return content[:place] + begin * depth + end * depth + content[place:]

def hostile(film) -> dict[str, bytes]:
    good = written(as_dicom(film))
    places = (1, 131, 132, 140, 200, 400, len(good) // 2, len(good) - 1)
    cuts = {f"cut at {place}": good[:place] for place in places}
    return cuts | {
        "page.dcm": b"<!doctype html><html><body>Sign in</body></html>", "empty.dcm": b"",
        "zip.dcm": b"PK\x03\x04" + zlib.compress(bytes(10 ** 7)), "deflated": deflated_bomb(film),
        "RLE": rle_bomb(), "JPEG in DICOM": lying_picture(JPEGBaseline8Bit),
        "JPEG 2000 in DICOM": lying_picture(JPEG2000Lossless), "nested": nested(film), "PNG": png_bomb(),
        "TIFF": tiff_of(t256=60_000, t257=60_000), "tile": tiff_of(t322=2 ** 30, t323=2 ** 30),
        "channels": tiff_of(t277=60_000), "pages": tiff_of()[:-4] + struct.pack("<I", 8), "JPEG": jpeg_bomb(),
        "WebP": webp_bomb(), "60,000 × 60,000": of_values(dict(Rows=60_000, Columns=60_000), film),
        "packed header": in_fragments(film, b"\xff\xd8\xff", JPEGBaseline8Bit, Rows=60_000, Columns=60_000)}

REFUSE_ALL = """
import json, re, sys
from pathlib import Path
import psutil
from pneumo_nb import films
from pneumo_nb.run import StudyError
films._pydicom()
peak = lambda pid: int(re.search(r"VmHWM:\\s+(\\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024
before, said = peak("self"), {}
for file in sorted(Path(sys.argv[1]).iterdir()):
    try: films.read_film(file)
    except StudyError as e: said[file.name] = str(e)
    else: said[file.name] = ""
decoder = films._DECODERS[0].pid
may_have = psutil.Process(decoder).rlimit(psutil.RLIMIT_AS)[0] / 2 ** 20
print(json.dumps([said, peak("self") - before, peak(decoder), may_have]))
"""

@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read as Linux tells it")
def test_hostile_files_are_refused_with_little_memory(film, tmp_path):
    files = hostile(film)
    for name, content in files.items(): (tmp_path/name).write_bytes(content)
    done = subprocess.run([sys.executable, "-c", REFUSE_ALL, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    said, here, elsewhere, may_have = json.loads(done.stdout)
    assert set(said) == set(files)
    assert [name for name, words in said.items() if not words] == ["RLE"]   # what is too much is not unpacked
    assert all(words.count("Expected") <= 1 and "\n" not in words for words in said.values())
    assert here < 200 and elsewhere < 600 and may_have < 4096, (here, elsewhere, may_have)   # MiB
    for name in ("PNG", "TIFF", "JPEG", "WebP", "60,000 × 60,000", "packed header"):
        assert "pixels; replace" in said[name], name

def test_a_film_of_the_most_pixels_is_known_by_its_header_alone():
    side = int(MOST_PIXELS ** .5)
    assert films._too_much(tiff_of(t256=side, t257=side), "TIFF") == ""
    assert "pixels" in films._too_much(tiff_of(t256=side, t257=side + 1), "TIFF")

def test_random_damage_to_compressed_pixels_never_ends_the_process(film, tmp_path):
    rng = np.random.default_rng(4)
    for name in COMPRESSED:
        content = compressed(as_dicom(film), name, tmp_path)
        start = content.index(b"\xe0\x7f\x10\x00")
        for _ in range(15):
            damaged = bytearray(content)
            for place in rng.integers(start, len(content), 6): damaged[place] = rng.integers(256)
            try: assert decode_film(bytes(damaged), "film.dcm").shape == film.shape
            except StudyError as e: assert "found" in str(e)

def test_a_decoder_that_died_is_replaced(film, tmp_path):
    content = compressed(as_dicom(film), "JPEG2000Lossless", tmp_path)
    decode_film(content, "film.dcm")
    for decoder in films._DECODERS:
        decoder.kill()
        decoder.wait()
    assert np.abs(decode_film(content, "film.dcm").astype(int) - film).max() <= 1
    assert [decoder.poll() for decoder in films._DECODERS][-1] is None

def test_a_process_that_decoded_ends_with_its_decoders(film, tmp_path):
    (tmp_path/"a.dcm").write_bytes(compressed(as_dicom(film), "RLELossless", tmp_path))
    code = "import sys; from pneumo_nb import films; films.read_film(sys.argv[1]); " \
           "print(films._DECODERS[0].pid)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path/"a.dcm"], capture_output=True, text=True)
    assert not done.stderr and not Path(f"/proc/{done.stdout.strip()}").exists()

# ---- tags

REMARKS = {  # tags; what is remarked
    "good": (dict(), []), "PA": (dict(ViewPosition="PA"), []), "none": (dict(ViewPosition=""), []),
    "part": (dict(BodyPartExamined="KNEE"), ["body part KNEE, not the chest"]),
    "modality": (dict(Modality="MR"), ["modality MR, no radiograph"]),
    "lateral": (dict(ViewPosition="LL"), ["view LL, not frontal"]),
    "burnt in": (dict(BurnedInAnnotation="YES"), ["writing burnt into the picture"]),
    "markup": (dict(BodyPartExamined="<B>DOE^JANE</B>"), ["body part of another kind, not the chest"])}

@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")   # pydicom's, of the test that writes it
@pytest.mark.parametrize("tags, says", REMARKS.values(), ids=REMARKS)
def test_tags_that_speak_against_a_frontal_chest_film_are_remarked(film, tags, says):
    content = of_values(tags, film)
    assert dicom_remarks(content) == [f"DICOM tags: {words}" for words in says]
    assert decode_film(content, "film.dcm").shape == film.shape   # it is read all the same

def test_a_lateral_view_by_its_code_is_remarked(film):
    code = Dataset()
    code.CodeMeaning = "left lateral"
    assert dicom_remarks(of_values(dict(ViewPosition="", ViewCodeSequence=[code]), film)) == [
        "DICOM tags: view not frontal"]

def test_no_tag_tells_who_is_on_a_film(film, capfd, recwarn):
    content = of_values(dict(Manufacturer="ACME", Rows=50), film)
    damaged = content.replace(b"20190203", b"2019-xx-").replace(b"CHEST ", b"CH\xffST ")
    for file in (content, damaged, content[:-50]):
        said = json.dumps([dicom_remarks(file), dicom_tags(file)])
        assert not any(value in said for value in PATIENT.values())
    assert dicom_tags(content, ["Rows", "Manufacturer"]) == dict(Rows=50, Manufacturer="ACME")
    for name in PATIENT:
        with pytest.raises(StudyError, match=f"found {name}; other tags"): dicom_tags(content, [name])
    assert dicom_tags(b"\xff\xd8\xff") == {} and dicom_remarks(b"\xff\xd8\xff") == []
    with pytest.raises(StudyError, match="tags can be read, found a damaged one"):
        dicom_remarks(deflated_bomb(film))
    assert not recwarn.list and capfd.readouterr() == ("", "")

# ---- the study takes them

def saved_as(root: Path, folder: Path, ending: str) -> Path:
    "A set of films in another format, without loss."
    for file in sorted(root.rglob("*.jpeg")):
        path, pixels = folder/file.relative_to(root).with_suffix(ending), read_film(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        if ending == ".dcm": path.write_bytes(written(as_dicom(pixels, 8, kind="MONOCHROME1")))
        else: cv2.imwrite(str(path), pixels)
    return folder

@pytest.mark.parametrize("ending", [".dcm", ".tif"])
def test_a_set_in_another_format_is_scanned_checked_and_decoded_to_the_same_films(phantoms, tmp_path, ending):
    root, as_jpeg = saved_as(phantoms, tmp_path/"set", ending), scan_dataset(phantoms)
    images = scan_dataset(root)
    columns = ["split", "label", "kind", "patient_id", "width", "height", "mode"]
    pd.testing.assert_frame_equal(images[columns], as_jpeg[columns])
    table = check_dataset(root, images)
    assert table.problem[table.serious & (table.films > 0)].tolist() == []
    np.testing.assert_array_equal(decode_films(images, 32).pixels, decode_films(as_jpeg, 32).pixels)
    assert len(pd.read_csv(write_template(root))) == len(images)

def test_remarks_and_refusals_stand_among_the_checks_of_a_set(phantoms, tmp_path, film):
    root = saved_as(phantoms, tmp_path/"set", ".dcm")
    first, second, *_ = sorted((root/"train/PNEUMONIA").iterdir())
    pixels = read_film(first)
    first.write_bytes(of_values(dict(ViewPosition="LL"), pixels))
    second.write_bytes(of_values(dict(NumberOfFrames=2), pixels))
    with pytest.warns(UserWarning, match="several frames"): images = scan_dataset(root)
    table = check_dataset(root, images).set_index("problem").films
    assert table["not a frontal chest film, or with writing burnt in, by its DICOM tags"] == 1
    assert list(images.attrs["left_out"].values()) == ["found several frames"]

def test_a_format_is_told_by_content_not_by_name(film, tmp_path):
    (tmp_path/"film.jpeg").write_bytes(written(as_dicom(film)))
    assert read_film(tmp_path/"film.jpeg").shape == film.shape
    assert {".jpeg", ".png", ".tif", ".webp", ".dcm"} < set(FILM_ENDINGS)
    assert os.path.splitext("a.DCM")[1].lower() in FILM_ENDINGS
