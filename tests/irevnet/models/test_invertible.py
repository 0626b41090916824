"""Chains of blocks with an inverse: of FrEIA and MemCNN themselves, and of one's own."""

import copy
import math

import FrEIA.framework
import FrEIA.modules
import memcnn
import pytest
import torch
from torch import nn

from irevnet.models.invertible import Invertible, InvertibleChain, as_invertible

SHAPE = (1, 8, 8)


def convolutions(channels_in, channels_out):
    return nn.Sequential(nn.Conv2d(channels_in, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels_out, 3, padding=1))


def layers(size_in, size_out):
    return nn.Sequential(nn.Linear(size_in, 16), nn.ReLU(), nn.Linear(16, size_out))


def freia_sequence():
    network = FrEIA.framework.SequenceINN(*SHAPE)
    network.append(FrEIA.modules.IRevNetDownsampling)
    network.append(FrEIA.modules.GLOWCouplingBlock, subnet_constructor=convolutions)
    network.append(FrEIA.modules.PermuteRandom, seed=0)
    network.append(FrEIA.modules.HaarDownsampling)
    network.append(FrEIA.modules.RNVPCouplingBlock, subnet_constructor=convolutions)
    return network


def freia_vectors():
    network = FrEIA.framework.SequenceINN(math.prod(SHAPE))
    for _ in range(2):
        network.append(FrEIA.modules.NICECouplingBlock, subnet_constructor=layers)
    return network


def freia_graph():
    """Half of the channels go past the second coupling, and are an output of their own."""
    image = FrEIA.framework.InputNode(*SHAPE)
    squeezed = FrEIA.framework.Node(image, FrEIA.modules.IRevNetDownsampling, {})
    coupled = FrEIA.framework.Node(squeezed, FrEIA.modules.GLOWCouplingBlock, {"subnet_constructor": convolutions})
    split = FrEIA.framework.Node(coupled, FrEIA.modules.Split, {})
    again = FrEIA.framework.Node(split.out1, FrEIA.modules.GLOWCouplingBlock, {"subnet_constructor": convolutions})
    flat = FrEIA.framework.Node(again, FrEIA.modules.Flatten, {})
    ends = FrEIA.framework.OutputNode(split.out0), FrEIA.framework.OutputNode(flat)
    return FrEIA.framework.GraphINN([image, squeezed, coupled, split, again, flat, *ends])


def memcnn_chain():
    couplings = [
        memcnn.AdditiveCoupling(convolutions(2, 2), convolutions(2, 2)),
        memcnn.AffineCoupling(convolutions(2, 2), convolutions(2, 2), adapter=memcnn.AffineAdapterNaive),
    ]
    wrapped = [memcnn.InvertibleModuleWrapper(each) for each in couplings]
    return nn.Sequential(nn.PixelUnshuffle(2), *wrapped, nn.Flatten(), nn.Linear(64, 3))


NETWORKS = {
    "sequence": (freia_sequence, 5),
    "vectors": (freia_vectors, 2),
    "graph": (freia_graph, 5),
    "memcnn": (memcnn_chain, 3),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    make, blocks = NETWORKS[request.param]
    torch.manual_seed(0)
    return make().double().eval(), blocks


def output_of(network, x):
    """What the package itself computes, flattened: all outputs of a graph, in their order."""
    if isinstance(network, nn.Sequential):
        return network(x)
    given = x.flatten(1) if isinstance(network, FrEIA.framework.SequenceINN) and len(network.shapes[0]) == 1 else x
    outputs, _ = network(given)
    return torch.cat([each.flatten(1) for each in (outputs if isinstance(outputs, tuple) else (outputs,))], dim=1)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # MemCNN's
def test_a_network_of_another_package_becomes_an_equal_chain(network):
    model, blocks = network
    x = torch.rand(3, *SHAPE, dtype=torch.float64)
    expected = output_of(copy.deepcopy(model), x.clone())
    chain = as_invertible(model, SHAPE)
    assert isinstance(chain, InvertibleChain)
    assert not chain.training
    assert chain.num_blocks == blocks
    torch.testing.assert_close(chain(x).flatten(1), expected)


def test_features_of_every_depth_are_inverted_to_rounding(network):
    model, blocks = network
    x = torch.rand(3, *SHAPE, dtype=torch.float64)
    chain = as_invertible(model, SHAPE)
    given = x.clone()
    for depth in range(blocks + 1):
        phi = chain.features(x, depth)
        assert phi[0].numel() == x[0].numel()
        kept = phi.clone()
        torch.testing.assert_close(chain.inverse(phi, depth), x, rtol=0, atol=1e-13)
        assert torch.equal(phi, kept)
    assert torch.equal(x, given)


def test_memcnn_frees_no_memory_of_features_or_images():
    model = as_invertible(memcnn_chain().eval(), SHAPE)
    x = torch.rand(2, *SHAPE)
    model(x).sum().backward()
    assert x.untyped_storage().size() == 4 * x.numel()


def test_networks_without_inverses_stay_as_they_are():
    plain = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 4, 1))
    assert as_invertible(plain, SHAPE) is plain
    chain = InvertibleChain([nn.PixelUnshuffle(2)])
    assert as_invertible(chain, SHAPE) is chain
    assert isinstance(chain, Invertible)
    assert not isinstance(plain, Invertible)


def test_log_determinants_beside_an_output_are_dropped():
    class Scale(nn.Module):
        def forward(self, x):
            return 2 * x, torch.full((len(x),), x[0].numel() * math.log(2))

        def inverse(self, y):
            return y / 2, torch.full((len(y),), -y[0].numel() * math.log(2))

    chain = InvertibleChain([Scale(), Scale()]).eval()
    assert torch.equal(chain.features(torch.ones(2, 3)), torch.full((2, 3), 4.0))
    assert torch.equal(chain.inverse(torch.ones(2, 3), 1), torch.full((2, 3), 0.5))


def test_what_cannot_be_a_block_is_refused():
    with pytest.raises(ValueError, match=r"block 2 is a Conv2d, which has no method `inverse`"):
        InvertibleChain([nn.Identity(), nn.Conv2d(1, 1, 1)])
    with pytest.raises(ValueError, match="a chain has no blocks"):
        InvertibleChain([])
    with pytest.raises(ValueError, match="a SequenceINN takes 64, not images of 1 x 4 x 4; choose their size by"):
        as_invertible(freia_vectors(), (1, 4, 4))

    class Two(nn.Module):
        def forward(self, x):
            return x, x

        def inverse(self, y):
            return y

    with pytest.raises(ValueError, match="a Two puts out tuples of several tensors; expected one"):
        InvertibleChain([Two()])(torch.rand(1, 2))


def test_conditions_and_several_inputs_are_refused():
    conditional = FrEIA.framework.SequenceINN(4)
    conditional.append(
        FrEIA.modules.NICECouplingBlock, cond=0, cond_shape=(2,), subnet_constructor=lambda m, n: nn.Linear(m, n)
    )
    with pytest.raises(ValueError, match="a SequenceINN takes conditions"):
        InvertibleChain([conditional])
    with pytest.raises(ValueError, match="a Concat takes 2 tensors and 0 conditions"):
        InvertibleChain([FrEIA.modules.Concat([(2, 4, 4), (2, 4, 4)])])
    image, condition = FrEIA.framework.InputNode(4), FrEIA.framework.ConditionNode(2)
    coupled = FrEIA.framework.Node(
        image, FrEIA.modules.NICECouplingBlock, {"subnet_constructor": nn.Linear}, conditions=condition
    )
    graph = FrEIA.framework.GraphINN([image, condition, coupled, FrEIA.framework.OutputNode(coupled)])
    with pytest.raises(ValueError, match="a GraphINN takes 1 tensors and 1 conditions"):
        InvertibleChain([graph])


def test_train_mode_and_unknown_depths_are_refused():
    chain = InvertibleChain([nn.PixelUnshuffle(2)])
    with pytest.raises(RuntimeError, match="features needs eval mode"):
        chain.features(torch.rand(1, 1, 2, 2))
    with pytest.raises(RuntimeError, match="inverse needs eval mode"):
        chain.inverse(torch.rand(1, 4, 1, 1))
    with pytest.raises(ValueError, match="depth 2 does not exist; this network has depths 0 to 1"):
        chain.eval().features(torch.rand(1, 1, 2, 2), 2)
