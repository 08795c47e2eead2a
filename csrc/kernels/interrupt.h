// How a long pass over memory lets its caller break it off (Ctrl-C), without knowing Python.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>

namespace pyparam {

// A pass that only reads may end anywhere, its results are thrown away. One that writes to
// somebody's tensors runs to its end.
enum class Pass { kReads, kWrites };

// Throws where the caller wants the pass to end. Called on the thread that the pass was called on.
using AskCaller = void (*)();
void set_ask_caller(AskCaller ask);
AskCaller ask_caller();

// Asks now and then whether to go on. One thread asks, all may look.
class Interruption {
 public:
  explicit Interruption(Pass pass)
      : ask_(pass == Pass::kReads ? ask_caller() : nullptr), last_(Clock::now()) {}

  // To be called between pieces of work, by the thread that called the pass alone.
  void ask() {
    if (ask_ == nullptr || Clock::now() - last_ < kBetween) return;
    last_ = Clock::now();
    try {
      ask_();
    } catch (...) {
      failure_ = std::current_exception();
      stopped_.store(true, std::memory_order_relaxed);
    }
  }
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }
  // What the caller threw. To be called when all threads have ended.
  void rethrow() const {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kBetween{50};

  AskCaller ask_;
  Clock::time_point last_;
  std::exception_ptr failure_;
  std::atomic<bool> stopped_{false};
};

}  // namespace pyparam
