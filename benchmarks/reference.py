"""The reference study's own way, written out once, to measure against: Keras's `ImageDataGenerator` reading
JPEGs, `model.fit` on it, one `model.predict` for each occlusion patch. Its faults are kept where they cost or
save time."""
from pathlib import Path

import keras
import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator

STUDY = dict(rescale=1 / 255, rotation_range=20, width_shift_range=.2, height_shift_range=.2, shear_range=.2,
             zoom_range=.2, horizontal_flip=True, fill_mode="nearest")

def generators(
    folder: str | Path, # holds NORMAL/ and PNEUMONIA/
    size: int,
    batch_size: int = 32,
): # train, validation: both go through the augmentation, as in the study
    "Files decoded, squashed and augmented afresh in every epoch, a fifth of them for validation."
    source = ImageDataGenerator(**STUDY, validation_split=.2)
    def flow(part):
        return source.flow_from_directory(
            folder, target_size=(size, size), batch_size=batch_size, class_mode="binary", subset=part,
            shuffle=part == "training", seed=42)
    return flow("training"), flow("validation")

def as_the_study_has_it(build, size: int) -> keras.Model: # (N, size, size, 3) in [0, 1] → (N, 1)
    "The same layers, but three channels and scaling come from the generator, not from the model."
    layers, scaling = build(size).layers, ("rescaling", "imagenet_preprocessing")
    first = next(n for n, layer in enumerate(layers) if layer.name.startswith(scaling)) + 1
    inputs = x = keras.Input((size, size, 3))
    for layer in layers[first:]: x = layer(x, training=False) if layer.name == "resnet50" else layer(x)
    return keras.Model(inputs, x)

def compile_as_the_study(model: keras.Model, learning_rate: float = 1e-4):
    "Adam and the study's metrics."
    model.compile(keras.optimizers.Adam(learning_rate), "binary_crossentropy",
                  metrics=["accuracy", keras.metrics.Precision(), keras.metrics.Recall()])

def occlusion_map(
    model,                    # as of `as_the_study_has_it`
    image: np.ndarray,        # (size, size, 3) in [0, 1]
    patch: int = 20,          # side of the covering square, pixels
    stride: int = 10,         # pixels
    rows: int | None = None,  # how many rows of positions; None for all
) -> np.ndarray: # (size, size)
    "The study's loop: one prediction a patch, overlaps summed, the last rows and columns left out."
    size = len(image)
    heat, base = np.zeros((size, size)), model.predict(image[None], verbose=0)[0, 0]
    for row in [*range(0, size - patch + 1, stride)][:rows]:
        for column in range(0, size - patch + 1, stride):
            where = slice(row, row + patch), slice(column, column + patch)
            covered = image.copy()
            covered[where] = .5
            heat[where] += abs(base - model.predict(covered[None], verbose=0)[0, 0])
    return heat
