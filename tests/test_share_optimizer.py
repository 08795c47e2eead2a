"""Optimizers of models whose parameters are tied and untied."""

import reference_share as reference
import torch
from tied_models import linears, stepped

import pyparam


def test_an_optimizer_is_mended():
    net = linears()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    stepped(net, optimizer)
    kept = optimizer.state[net[0].weight]
    pyparam.tie_(net, "0.weight", "2.weight", "3.weight", optimizer=optimizer)
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
    assert optimizer.state[net[0].weight] is kept
    assert set(map(id, optimizer.state)) == set(map(id, net.parameters()))
    before = net[0].weight.detach().clone()
    stepped(net, optimizer)
    assert not torch.equal(net[0].weight, before)
    assert torch.equal(net[0].weight, net[3].weight)
    optimizer.load_state_dict(optimizer.state_dict())


def test_a_source_that_the_optimizer_lacks_takes_the_targets_place():
    net = linears(2)
    optimizer = torch.optim.SGD(
        [{"params": [net[0].bias]}, {"params": [net[1].weight, net[1].bias], "lr": 0.5}], lr=0.1
    )
    pyparam.tie_(net, "0.weight", "1.weight", optimizer=optimizer)
    assert optimizer.param_groups[1]["params"][0] is net[0].weight


def test_a_group_may_become_empty():
    net = linears(2)
    optimizer = torch.optim.Adam([{"params": [net[0].weight]}, {"params": [net[1].weight]}], lr=0.1)
    pyparam.tie_(net, "0.weight", "1.weight", optimizer=optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 0]
    stepped(net, optimizer)


def test_names_in_an_optimizer_follow():
    net = linears(3)
    optimizer = torch.optim.SGD(net.named_parameters(), lr=0.1)
    pyparam.tie_(net, "0.weight", "1.weight", optimizer=optimizer)
    (group,) = optimizer.param_groups
    assert group["param_names"] == ["0.weight", "0.bias", "1.bias", "2.weight", "2.bias"]
    pyparam.untie_(net, "1.weight", optimizer=optimizer)
    assert group["param_names"] == ["0.weight", "0.bias", "1.bias", "2.weight", "2.bias", "1.weight"]
    assert group["params"][-1] is net[1].weight


def test_a_parameter_that_another_name_still_holds_stays():
    net = linears(3)
    pyparam.tie_(net, "1.weight", "2.weight")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pyparam.tie_(net, "0.weight", "2.weight", optimizer=optimizer)
    assert sum(p is net[1].weight for p in optimizer.param_groups[0]["params"]) == 1


def test_retie_mends_an_optimizer():
    net = reference.sequential()
    recorded = pyparam.ties(net)
    pyparam.untie_(net, "4.weight")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    assert len(optimizer.param_groups[0]["params"]) == 7
    pyparam.retie_(net, recorded, optimizer=optimizer)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in net.parameters()]
