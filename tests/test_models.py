"""Networks: sizes that are known from their papers, formulas, and that padding never matters."""

import math

import pytest
import torch
from torch import nn

from lrstudy import proof
from lrstudy.errors import StudyError
from lrstudy.recipe.models import (
    ARCHITECTURES,
    LSTM,
    BasicBlock,
    EncoderBlock,
    ResNet,
    Transformer,
    WordDropout,
    attend_to,
    count_parameters,
    make_model,
)
from tiny_data import MODELS

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT_META = {"kind": "text", "num_classes": 2, "vocab_size": 50, "max_length": 20}
IMAGE_META = {"kind": "image", "num_classes": 10, "in_channels": 3, "image_size": [32, 32]}
TEXT_MODELS = ("lstm", "transformer")


def text_model(name: str, **changes) -> nn.Module:
    torch.manual_seed(0)
    return make_model(MODELS[name] | changes, TEXT_META)


def reviews(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random reviews of these lengths, padded with 0 to the longest."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        tokens[row, :length] = torch.randint(1, TEXT_META["vocab_size"], (length,), generator=generator)
    return tokens, torch.tensor(lengths)


# -------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("num_classes", [2, 10])
@pytest.mark.parametrize(
    "settings", [MODELS["resnet"], {"architecture": "resnet18"}], ids=["resnet", "resnet18"]
)
def test_image_models_give_one_logit_per_class(settings, num_classes):
    model = make_model(settings, {"num_classes": num_classes})
    assert model(torch.randn(3, 3, 32, 32)).shape == (3, num_classes)


@pytest.mark.parametrize(
    "settings", [MODELS["resnet"], {"architecture": "resnet18"}], ids=["resnet", "resnet18"]
)
def test_image_models_take_grey_images_of_any_size(settings):
    model = make_model(settings, {"num_classes": 10, "in_channels": 1, "image_size": [28, 36]})
    assert model(torch.randn(2, 1, 28, 36)).shape == (2, 10)


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("name", TEXT_MODELS)
def test_text_models_give_one_logit_per_class(name, num_classes):
    model = make_model(MODELS[name], TEXT_META | {"num_classes": num_classes})
    assert model(*reviews([4, 1, 7])).shape == (3, num_classes)


def test_an_unknown_network_is_named():
    with pytest.raises(StudyError, match=r"'resnet19' is not a network.*Did you mean 'resnet"):
        make_model({"architecture": "resnet19"}, IMAGE_META)


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - set(MODELS) - {"resnet18"}))
def test_every_other_network_gives_one_logit_per_class_with_small_sizes(name):
    """What the proof would train it with; the others have tests of their own."""
    images = proof.kind_of(name) == "image"
    meta = IMAGE_META if images else TEXT_META
    model = make_model({"architecture": name, **proof.sizes_of(name, 0)}, meta)
    inputs = (torch.randn(3, 3, 32, 32),) if images else reviews([4, 1, 7])
    assert model(*inputs).shape == (3, meta["num_classes"])


def test_heads_that_do_not_divide_the_size_are_refused_when_the_network_is_made():
    with pytest.raises(StudyError, match="embedding_size 8 is not a multiple of num_heads 3"):
        text_model("transformer", num_heads=3)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_trained(name):
    model = make_model(MODELS[name], IMAGE_META | TEXT_META)
    inputs = (torch.randn(4, 3, 32, 32),) if name == "resnet" else reviews([20, 3, 9, 1])
    model(*inputs)[:, 0].sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


# -------------------------------------------------------------------------------------------------- ResNet


def resnet_parameters(depth: int, width: int, num_classes: int, projections: bool = True) -> int:
    """Parameters of the CIFAR ResNet, layer by layer: 3x3 convolutions without bias, scale and shift per
    normalized channel, a 1x1 projection where the width doubles, one linear layer."""

    def convolution(size: int, inputs: int, outputs: int) -> int:
        return size**2 * inputs * outputs + 2 * outputs

    total, channels = convolution(3, 3, width), width
    for outputs in (width, 2 * width, 4 * width):
        for _ in range((depth - 2) // 6):
            total += convolution(3, channels, outputs) + convolution(3, outputs, outputs)
            if projections and channels != outputs:
                total += convolution(1, channels, outputs)
            channels = outputs
    return total + (channels + 1) * num_classes


@pytest.mark.parametrize(("depth", "width"), [(8, 8), (8, 16), (20, 16), (14, 32)])
def test_resnet_has_the_parameters_of_its_formula(depth, width):
    assert count_parameters(ResNet(10, depth, width)) == resnet_parameters(depth, width, 10)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_resnet_has_the_published_size(depth, millions):
    """He et al. 2016, table 6; its shortcuts have no parameters, so the projections are left out."""
    model = ResNet(10, depth, 16)
    projections = sum(count_parameters(block.shortcut) for block in model.blocks)
    assert round((count_parameters(model) - projections) / 1e6, 2) == millions
    assert projections == 64 * 32 + 32 * 16 + 2 * (32 + 64)  # 1x1, and their normalization


def test_frozen_parameters_do_not_count():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert count_parameters(model) == 6


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_resnet_depth_counts_the_layers_on_the_main_path(depth):
    model = ResNet(10, depth, 8)
    projections = {m for block in model.blocks for m in block.shortcut.modules()}
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in projections]
    assert len(layers) == depth


def test_resnet_halves_the_image_and_doubles_the_width_twice():
    model = ResNet(10, 14, 8)
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.randn(2, 3, 32, 32))
    assert shapes == [(8, 32, 32)] * 2 + [(16, 16, 16)] * 2 + [(32, 8, 8)] * 2


@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (16, 2)])
def test_a_basic_block_is_its_formula(channels, stride):
    torch.manual_seed(0)
    block = BasicBlock(8, channels, stride)
    x = torch.randn(4, 8, 6, 6)
    y = block.norm2(block.conv2(block.norm1(block.conv1(x)).clamp(min=0)))
    expected = (y + block.shortcut(x)).clamp(min=0)
    torch.testing.assert_close(block(x.clone()), expected)
    assert isinstance(block.shortcut, nn.Identity) == (channels == 8)


def test_resnet18_keeps_a_small_image_large():
    model = make_model({"architecture": "resnet18"}, IMAGE_META)
    shapes = {}
    for name in ("conv1", "maxpool", "layer1", "layer4"):
        getattr(model, name).register_forward_hook(
            lambda module, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    model.eval()(torch.randn(1, 3, 32, 32))
    assert shapes == {"conv1": (64, 32, 32), "maxpool": (64, 32, 32), "layer1": (64, 32, 32), "layer4": (512, 4, 4)}  # fmt: skip
    assert count_parameters(model) == 11_173_962  # 11.17 M in CIFAR work


# ---------------------------------------------------------------------------------------------------- text


def test_lstm_has_the_parameters_of_its_formula():
    vocab, e, h, classes = 50, 8, 12, 2
    gates = 4 * h * (e + h + 2) + 4 * h * (h + h + 2)  # two layers; torch has two bias vectors
    assert count_parameters(LSTM(classes, vocab, e, h, 2, 0.0, 0.0)) == vocab * e + gates + classes * (h + 1)


def test_transformer_has_the_parameters_of_its_formula():
    vocab, length, e, f, layers, classes = 50, 20, 8, 32, 3, 2
    block = 4 * e * (e + 1) + 2 * e * f + f + e + 2 * 2 * e
    expected = (vocab + length) * e + layers * block + 2 * e + classes * (e + 1)
    model = Transformer(classes, vocab, length, e, 2, layers, f, 0.0, 0.0)
    assert count_parameters(model) == expected


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_padding_never_changes_a_reviews_logits(name):
    model = text_model(name).eval()
    tokens, lengths = reviews([7, 1, 12, 5])
    logits = model(tokens, lengths)
    further = torch.cat([tokens, torch.zeros(4, 8, dtype=torch.long)], dim=1)
    torch.testing.assert_close(model(further, lengths), logits, rtol=0, atol=1e-6)
    # not even if the padding held words
    padded = torch.arange(tokens.shape[1]) >= lengths[:, None]
    torch.testing.assert_close(model(tokens.masked_fill(padded, 3), lengths), logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_a_review_does_not_see_the_others_of_its_batch(name):
    model = text_model(name).eval()
    tokens, lengths = reviews([7, 1, 12, 5])
    logits = model(tokens, lengths)
    for row, length in enumerate(lengths):
        alone = model(tokens[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(alone[0], logits[row], rtol=0, atol=1e-6)
    shuffled = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        model(tokens[shuffled], lengths[shuffled]), logits[shuffled], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", TEXT_MODELS)
@pytest.mark.parametrize("position", [0, 4, 9])
def test_every_word_and_its_place_matter(name, position):
    model = text_model(name).eval()
    tokens, lengths = reviews([10])
    logits = model(tokens, lengths)
    changed = tokens.clone()
    changed[0, position] = tokens[0, position] % 49 + 1
    assert not torch.allclose(model(changed, lengths), logits, rtol=0, atol=1e-6)
    swapped = tokens.clone()
    swapped[0, [position, 5]] = tokens[0, [5, position]]
    assert not torch.allclose(model(swapped, lengths), logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_the_padding_token_is_zero_and_is_not_trained(name):
    model = text_model(name)
    assert not model.embedding.weight[0].any()
    model(*reviews([9, 2, 5])).square().sum().backward()
    assert not model.embedding.weight.grad[0].any()
    assert model.embedding.weight.grad[1:].any()


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_dropout_acts_in_training_alone(name):
    model, inputs = text_model(name, dropout=0.5), reviews([9, 2, 5])
    assert not torch.equal(model(*inputs), model(*inputs))
    model.eval()
    assert torch.equal(model(*inputs), model(*inputs))


def test_dropped_words_are_read_as_the_unknown_word_and_padding_stays():
    tokens, lengths = reviews([40, 1, 25, 5])
    real = torch.arange(tokens.shape[1]) < lengths[:, None]
    torch.testing.assert_close(WordDropout(1.0)(tokens), torch.where(real, 1, 0), rtol=0, atol=0)
    assert torch.equal(WordDropout(0.0)(tokens), tokens)
    torch.manual_seed(0)
    many = torch.full((100, 100), 7)
    dropped = WordDropout(0.3)(many)
    assert set(dropped.unique().tolist()) == {1, 7}
    assert abs((dropped == 1).sum().item() - 3000) < 5 * math.sqrt(
        10_000 * 0.3 * 0.7
    )  # five standard deviations


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_words_are_dropped_in_training_alone(name):
    model, inputs = text_model(name, dropout=0.0, word_dropout=0.5), reviews([9, 2, 5])
    assert not torch.equal(model(*inputs), model(*inputs))
    model.eval()
    assert torch.equal(model(*inputs), model(*inputs))


def test_attention_begins_as_torchs_does():
    """Xavier: uniform within sqrt(6 / (inputs + outputs)), for query, key and value as one matrix."""
    torch.manual_seed(0)
    block = EncoderBlock(64, 4, 256, 0.0)
    bound = (6 / (64 + 3 * 64)) ** 0.5
    largest = block.query_key_value.weight.abs().max().item()
    assert 0.99 * bound < largest <= bound
    assert not block.query_key_value.bias.any()
    assert not block.output.bias.any()


def test_attention_on_a_cpu_is_computed_in_float32_whatever_the_rest_is():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    mask = torch.arange(6) < torch.tensor([[6], [3]])[:, None, None]
    rounded = [part.bfloat16() for part in (query, key, value)]
    with torch.autocast("cpu", torch.bfloat16):
        found = attend_to(*rounded, mask)
    scores = rounded[0].float() @ rounded[1].float().transpose(-1, -2) / 8**0.5
    expected = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ rounded[2].float()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_an_encoder_block_is_torchs_pre_norm_layer():
    torch.manual_seed(0)
    block = EncoderBlock(8, 2, 16, 0.0)
    reference = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    reference.load_state_dict(
        {
            "self_attn.in_proj_weight": block.query_key_value.weight,
            "self_attn.in_proj_bias": block.query_key_value.bias,
            **{f"self_attn.out_proj.{k}": v for k, v in block.output.state_dict().items()},
            **{f"linear1.{k}": v for k, v in block.feedforward[0].state_dict().items()},
            **{f"linear2.{k}": v for k, v in block.feedforward[2].state_dict().items()},
            **{f"norm1.{k}": v for k, v in block.norm1.state_dict().items()},
            **{f"norm2.{k}": v for k, v in block.norm2.state_dict().items()},
        }
    )
    x, lengths = torch.randn(3, 6, 8), torch.tensor([6, 2, 4])
    real = torch.arange(6) < lengths[:, None]
    found = block(x, real[:, None, None, :])
    expected = reference(x, src_key_padding_mask=~real)
    torch.testing.assert_close(found[real], expected[real])
