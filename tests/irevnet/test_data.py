import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.transforms import v2

from irevnet.data import IMAGENET_TRANSFORM, InputTransform, batches, data_info, load_data

DIGITS = InputTransform(channels=1, image_size=(8, 8))


def test_the_digits_are_split_once_and_for_all_with_every_class_in_both_parts():
    train, test = load_data("digits", "train", DIGITS), load_data("digits", "test", DIGITS)
    assert (len(train), len(test)) == (1437, 360)
    assert min(np.bincount(test.labels)) >= 34
    seen = {tuple(image.flatten().tolist()) for image, _ in train} | {
        tuple(image.flatten().tolist()) for image, _ in test
    }
    every = {tuple((image / 16).astype(np.float32).flatten().tolist()) for image in load_digits().images}
    assert seen == every
    assert [label for _, label in load_data("digits", "test", DIGITS)] == test.labels


def test_images_are_in_the_unit_interval_with_their_labels():
    image, label = load_data("digits", "train", DIGITS)[0]
    assert image.shape == (1, 8, 8)
    assert image.min() == 0
    assert image.max() == 1
    assert data_info("digits").classes[label] in "0123456789"


def test_an_unknown_data_set_is_answered_with_what_there_is():
    with pytest.raises(ValueError, match="there is no data set 'digit'; did you mean digits"):
        data_info("digit")


def test_the_imagenet_transform_is_torchvisions_recipe():
    reference = v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    image = torch.rand(3, 300, 401)
    torch.testing.assert_close(IMAGENET_TRANSFORM(image), reference(image))


def test_an_image_of_the_right_size_is_left_as_it_is():
    image = torch.rand(1, 8, 8)
    assert torch.equal(DIGITS(image), image)


def test_the_whole_image_is_resized_where_nothing_is_cropped():
    assert InputTransform(channels=1, image_size=(4, 6))(torch.rand(1, 9, 9)).shape == (1, 4, 6)


def test_grey_images_become_coloured_and_coloured_ones_grey():
    grey = torch.rand(1, 8, 8)
    coloured = InputTransform(channels=3, image_size=(8, 8))(grey)
    assert torch.equal(coloured, grey.expand(3, 8, 8))
    again = InputTransform(channels=1, image_size=(8, 8))(coloured)
    torch.testing.assert_close(again, grey, rtol=0, atol=1e-3)  # the grey weights of torchvision sum to 0.9999
    alpha = torch.cat((coloured, torch.ones(1, 8, 8)))
    assert torch.equal(InputTransform(channels=3, image_size=(8, 8))(alpha), coloured)


def test_pixels_come_back_from_the_networks_input():
    pixels = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    inputs = IMAGENET_TRANSFORM.normalise(pixels)
    assert inputs[0, 1, 2, 3].item() == pytest.approx((pixels[0, 1, 2, 3].item() - 0.456) / 0.224)
    torch.testing.assert_close(IMAGENET_TRANSFORM.to_pixels(inputs), pixels, rtol=1e-12, atol=1e-12)


def test_batches_in_order_hold_every_image_and_shuffled_ones_are_full():
    data = load_data("digits", "test", DIGITS)
    labels = torch.cat([labels for _, labels in batches(data, 100)])
    assert labels.tolist() == data.labels
    sizes = [len(labels) for _, labels in batches(data, 100, shuffle=torch.Generator().manual_seed(0))]
    assert sizes == [100, 100, 100]
    first, again = (
        torch.cat([labels for _, labels in batches(data, 100, shuffle=torch.Generator().manual_seed(3))])
        for _ in range(2)
    )
    assert torch.equal(first, again)
    assert first.tolist() != data.labels[:300]


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="an image of 2 channels cannot be shown to a network of 3"):
        InputTransform(channels=3, image_size=(8, 8))(torch.rand(2, 8, 8))
