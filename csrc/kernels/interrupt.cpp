#include "kernels/interrupt.h"

namespace pyparam {
namespace {

std::atomic<AskCaller> asked{nullptr};

}  // namespace

void set_ask_caller(AskCaller ask) { asked = ask; }
AskCaller ask_caller() { return asked; }

}  // namespace pyparam
