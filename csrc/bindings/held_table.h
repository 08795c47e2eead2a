// Tables between Python and native code.
//
// Python keeps a HeldTable. Its tensors are Python's objects, which PyTorch can swap
// (torch.utils.swap_tensors: how it converts models of tensor subclasses, and any in its swap
// mode), and not one that native code holds. Verbs take a `const ParamTable&`: the conversion below
// lends them the tensors for the length of the call, so that none can stay with a table.
#pragma once

#include <optional>
#include <utility>

#include "bindings/loan.h"
#include "table/param_table.h"

namespace pyparam {

class HeldTable {
 public:
  HeldTable(NameColumn names, pybind11::list objects)
      : table_{std::move(names), {}}, objects_(std::move(objects)) {}
  // Of tensors that have no objects yet, or that others in native code hold anyway (TorchScript).
  explicit HeldTable(ParamTable table) : table_(std::move(table)) {}

  const NameColumn& names() const { return table_.names; }
  // The list of tensors; null where they are held natively.
  const pybind11::object& objects() const { return objects_; }
  // The table, where its tensors are held natively.
  const ParamTable& native() const { return table_; }

 private:
  ParamTable table_;
  pybind11::object objects_;
};

// A held table's tensors lent to native code.
class LentTable : public ParamTable {
 public:
  explicit LentTable(const HeldTable& held) {
    names = held.names();
    loan_.take(held.objects().ptr());
  }

 private:
  Loan loan_{tensors};
};

void bind_tables(pybind11::module_& m);

}  // namespace pyparam

namespace pybind11::detail {

template <>
struct type_caster<pyparam::ParamTable> {
  static constexpr auto name = const_name("ParamTable");
  template <typename>
  using cast_op_type = const pyparam::ParamTable&;
  operator const pyparam::ParamTable&() const { return *table_; }

  bool load(handle source, bool) {
    make_caster<pyparam::HeldTable> held;
    if (source.is_none() || !held.load(source, false)) return false;
    const auto& table = cast_op<const pyparam::HeldTable&>(held);
    table_ = table.objects() ? &lent_.emplace(table) : &table.native();
    return true;
  }

 private:
  std::optional<pyparam::LentTable> lent_;
  const pyparam::ParamTable* table_ = nullptr;
};

}  // namespace pybind11::detail
