#include "walk/member_walker.h"

namespace pyparam::walk {

MemberWalker::MemberWalker(Ref root, Ref prefix, const MemberOptions& options)
    : modules_(Ref::borrow(root.get()), Ref::borrow(prefix.get()), options.remove_duplicate, Ref(),
               /*ask_root=*/true),
      options_(options),
      root_(std::move(root)),
      prefix_(std::move(prefix)) {}

bool MemberWalker::next() {
  if (done_) return false;
  try {
    for (;;) {
      if (items_) {
        while (items_->next(key_, value_)) {
          if (value_.get() == Py_None) continue;
          if (options_.remove_duplicate && !memo_.insert(value_.get())) continue;
          return true;
        }
        items_.reset();
      }
      if (!next_module()) {
        done_ = true;
        key_ = Ref();
        value_ = Ref();
        return false;
      }
      ++module_index_;
      items_ = Items::of_mapping(ModuleView(module_.get()).attribute(options_.members));
    }
  } catch (...) {
    done_ = true;
    throw;
  }
}

bool MemberWalker::next_module() {
  if (options_.recurse) {
    if (!modules_.next()) return false;
    module_ = Ref::borrow(modules_.module());
    return true;
  }
  if (started_) return false;
  started_ = true;
  modules_.path().assign(prefix_.get());
  module_ = Ref::borrow(root_.get());
  return true;
}

int MemberWalker::visit(visitproc visit, void* arg) const {
  if (const int stopped = modules_.visit(visit, arg)) return stopped;
  for (const Ref* ref : {&root_, &prefix_, &module_, &key_, &value_}) {
    if (const int stopped = ref->visit(visit, arg)) return stopped;
  }
  if (items_) {
    if (const int stopped = items_->visit(visit, arg)) return stopped;
  }
  return memo_.visit(visit, arg);
}

void MemberWalker::clear() {
  done_ = true;
  Ref root = std::move(root_), module = std::move(module_);
  Ref key = std::move(key_), value = std::move(value_);
  std::optional<Items> items = std::move(items_);
  items_.reset();
  modules_.clear();
  memo_.clear();
}

}  // namespace pyparam::walk
