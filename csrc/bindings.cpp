// The pybind11 module: definitions only.
#include <torch/csrc/utils/pybind.h>

#include "article.h"
#include "bindings/compare.h"
#include "bindings/fingerprint.h"
#include "bindings/flatten.h"
#include "bindings/held_table.h"
#include "bindings/interrupt.h"
#include "bindings/measure.h"
#include "bindings/name.h"
#include "bindings/outline.h"
#include "bindings/pack.h"
#include "bindings/share.h"
#include "bindings/walk.h"

namespace py = pybind11;

namespace pyparam {
void bind_device_table(py::module_& m);
void bind_extent(py::module_& m);
void bind_files(py::module_& m);
void bind_script(py::module_& m);
void bind_init(py::module_& m);
void bind_kinds(py::module_& m);
void bind_parts(py::module_& m);
void bind_text(py::module_& m);
}  // namespace pyparam

PYBIND11_MODULE(_C, m) {
  pyparam::answer_signals();
  m.def(
      "article_of", [](const pyparam::Name& name) { return pyparam::article_of(name.text); },
      py::arg("name"));
  pyparam::bind_tables(m);
  pyparam::bind_walk(m);
  pyparam::bind_outline(m);
  pyparam::bind_measure(m);

  pyparam::bind_files(m);
  pyparam::bind_script(m);
  pyparam::bind_compare(m);
  pyparam::bind_fingerprint(m);
  pyparam::bind_share(m);
  pyparam::bind_flatten(m);
  pyparam::bind_pack(m);
  pyparam::bind_init(m);
  pyparam::bind_kinds(m);
  pyparam::bind_parts(m);
  pyparam::bind_device_table(m);
  pyparam::bind_extent(m);
  pyparam::bind_text(m);
}
