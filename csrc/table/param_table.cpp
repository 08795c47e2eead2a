#include "table/param_table.h"

namespace pyparam {

void NameColumn::part() {
  if (held_.use_count() > 1) held_ = std::make_shared<Held>(*held_);
  held_->entry_sums.reset();
}

void NameColumn::Reader::go_to(Node owner) {
  const std::vector<Module>& nodes = held_->nodes;
  // Both paths begin with that of the last module that both lie in. A module stands behind the one
  // that it is in, so the one that stands further behind is never it.
  Node from = owner_, to = owner;
  while (from != to) {
    Node& deeper = from > to ? from : to;
    deeper = nodes[deeper].parent;
  }
  owner_ = owner;
  path_length_ = nodes[owner].path_length;
  text_.resize(path_length_);
  held_->write_path(owner, to, text_.data());
}

}  // namespace pyparam
